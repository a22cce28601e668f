"""Models by their name on the Hugging Face hub, as `openai/gpt-oss-20b`, and their place in its cache.

    files.py      which of a repository's files are the model
    cache.py      where a downloaded one is
    transfer.py   one file to disk: resumed where it stopped, and checked
    download.py   all of them, with the room on disk asked about first

The cache is the one that every program around the hub shares, so what one of them downloaded serves them all.
It is written here as huggingface_hub writes it: `blobs/CHECKSUM`, `snapshots/COMMIT/NAME` → blobs, `refs/`.
A hub is believed nothing that would become a path: names stay in the folder, checksums are hexadecimal.
"""
