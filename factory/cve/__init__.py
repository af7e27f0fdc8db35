"""Known vulnerabilities: reading what Debian's security tracker and OSV files say, and matching it with packages.

Reading and matching are pure. What is said comes from `fetching` (URLs, kept in the cache) and `data` (files), which
write nothing but that cache. A source that cannot be read is an error, never an empty answer; a severity that nobody
knows counts as the worst.
"""
