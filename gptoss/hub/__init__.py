"""Models of the Hugging Face hub, by name (`openai/gpt-oss-20b`), and their files in its cache.

    files.py           which files of a repository are needed
    cache.py           where a downloaded model is
    transfer.py        downloads one file: resumable, and checked
    download.py        downloads a model, after checking the free disk space
    offer_download.py  asks the user whether to download a missing model

All programs for the hub share the cache, so a model that one of them downloaded can be used by all.  It has
the layout of huggingface_hub: `blobs/CHECKSUM`, `snapshots/COMMIT/NAME` → blobs, `refs/`.  Names and
checksums from the hub become paths, so they are checked: names must stay in the folder, checksums must be
hexadecimal.
"""
