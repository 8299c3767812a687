"""Files and directories, local or at a URI such as ``s3://bucket/store``.

``files`` reads, lists and writes single files. ``cache`` keeps local copies of finished remote
directories. ``mirror`` writes a remote directory by way of a local one.
"""
