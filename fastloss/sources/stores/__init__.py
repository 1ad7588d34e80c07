"""Stores: logs in object stores and on web servers.

`options` knows the words of each kind of store and keeps secrets out of what is shown, `retries` says which failures
pass and waits for that, `web` reads ranges of files over HTTP, and `store` makes one kind of file system of all: what
lists, opens and reads is the same for S3, Google Cloud Storage, Azure and the web.

A read of a range is what is tried again: it has no memory, and its size is bounded, so that a log is read through a
connection that breaks every few seconds. Damage is never tried again, nor is a refusal of access or a file that is not
there. That a file is still the one that was planned is known by its size and entity tag.
"""
