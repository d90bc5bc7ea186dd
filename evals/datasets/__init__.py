"""Data sets of tasks on this machine: getting them from the hub (`fetch`), and saying what is there (`inventory`).

`record` is what is known of a folder: repository, revision, and the digest of every file.
"""
