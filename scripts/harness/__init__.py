"""What running an experiment needs and mathematics does not.

Modules:
    experiment: what an experiment is, and how it runs.
    cli: typed command lines from a frozen dataclass, presets, dry runs, exit statuses.
    names: the names that flags choose from.
    store: run folders of atomically written rows, which resume after a kill.
    rows: what a row is, its JSON Lines and CSV form, and the environment that every row carries.
    mesh, placement: devices and processes, and where arrays lie on them.
    compiling: functions that are compiled once for the whole process.
    lazy: libraries that are imported when they are first used.
    progress: a progress bar where somebody is looking.
    looks: the colour and marker of each known series, which ``looks.toml`` lists.
    plot: one plot style, which ``plot.mplstyle`` sets, drawn from rows.
    report: one self-contained HTML page, or Markdown, from the templates beside it.
"""
