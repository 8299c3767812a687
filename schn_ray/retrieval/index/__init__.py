"""An exact Hamming index on disk: each distinct code once, with the list of rows that have it.

Supervised codes collapse into few distinct values, so distinct codes are scanned only, and each hit
is expanded through its list of rows. A row's number is its place in the order of ids, so the answer
does not depend on the order in which the codes came. Where there are many codes, only those lists
of them are scanned that can hold what is asked for; see ``scan``.

A directory of kind ``index`` has one folder, its version, with

    codes                        uint8 [u, w], the distinct codes, ascending
    starts                       int64 [u + 1], where each code's rows begin in
    rows                         uint32 [n], ascending for each code
    code_of_row                  uint32 [n], the inverse
    ids.starts, ids.text         the ids, ascending; see ``string_columns``
    uris.starts, uris.text       where each row's image is
    lists, radii                 only for many codes that cluster; see ``inverted_lists``
    digests                      sizes and digests of all of them; see ``checked_files``

All files are mapped into memory: opening takes milliseconds, processes share what they read, and
every block is checked before it is used.
"""
