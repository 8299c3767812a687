"""An exact Hamming index on disk: each distinct code once, with the list of rows that have it.

Supervised codes collapse into few distinct values. So only distinct codes are scanned, and each hit
is expanded through its list of rows. Rows are numbered in the order of their ids; results do not
depend on the order in which the codes came. If there are many codes, they are clustered into lists,
and only the lists that can hold a match are scanned.

Modules:
    build: writes an index, adds rows and removes rows.
    index: opens it and searches it; decides where a scan is certified to be complete.
    scan: scans distinct codes, all of them or by certified lists.
    inverted_lists: clusters the codes into lists when an index is built.
    postings: expands codes into rows and ranks them; ties are handled there.
    scores: ranks rows by the score of a query's relaxed output, with a proof.
    matches: the results.
    columns: columns beside the rows, such as label and year, for filters.
    column_file: reads them from a Parquet or CSV file, to be joined by id.
    selection: what a search sees if only rows that pass a filter count.
    union: more than one index, searched as one.
    checked_files: maps the files and compares a block's hash before its first use.
    string_columns: ids and uris on disk.

A directory of kind ``index`` has one folder, its version, with these files:
    codes: uint8 [u, w], the distinct codes, ascending.
    starts: int64 [u + 1], where each code's rows begin in ``rows``.
    rows: uint32 [n], ascending for each code.
    code_of_row: uint32 [n], the inverse: the number of each row's code.
    ids.starts, ids.text: the ids, ascending; see ``string_columns``.
    uris.starts, uris.text: the location of each row's image.
    columns, column-0.present ...: only with columns beside the rows; see ``columns``.
    lists, radii: only for many codes that cluster; see ``inverted_lists``.
    digests: sizes and hashes of all of them; see ``checked_files``.

All files are mapped into memory. Opening takes milliseconds, and processes share what they read.
"""
