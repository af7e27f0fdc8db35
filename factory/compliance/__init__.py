"""Questions of a compliance team to the catalog, with the signatures behind the answers looked at again.

`asking` opens the catalog for a question. Nothing here decides what may run, and nothing is changed but the catalog's
own index of what stands in trust/.
"""
