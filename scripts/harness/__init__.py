"""What running an experiment needs and mathematics does not.

Modules:
    cli: typed command lines from a frozen dataclass, presets, dry runs, exit statuses.
    ranges: numbers in a range, as annotations.
    store: run folders of atomically written rows, which resume after a kill.
    rows: what a row is, its JSON Lines and CSV form, and the environment that every row carries.
    files: atomic writes.
    progress: a progress bar where somebody is looking.
    looks: the colour and marker of each known series.
    plot: one plot style, drawn from rows.
    report: one self-contained HTML page.
"""
