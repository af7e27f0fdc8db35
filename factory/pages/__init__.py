"""The catalog in a browser: Datasette in this process, on a copy of the catalog that refreshes itself, with our pages.

`site` answers requests from one `edition` at a time, `refresh` makes the next, `serving` runs it all; `plugin` is what
Datasette loads: the pages, their templates and their style. Never writes to the catalog but to tell it what trust/
gained, serves nothing but GET, and needs no network and no script.
"""
