"""The map of a gallery: its codes in two dimensions, near where they are near in bits.

``gallery_map`` draws rows and finds their distinct codes, ``neighbours`` the nearest codes of each,
``layout`` a place for each in the plane, ``colours`` the label or group of each row, and
``atlas_table`` writes all of it as Parquet. ``report.map`` writes the page.
"""
