"""The classroom: what a lesson needs, and the tools that turn lessons into notebooks and answers into verdicts.

    session    what every lesson calls: arguments, progress, show
    exercise   check: cases, what an answer did with them, the verdict; cases has their makings
    contract   what an answer takes and returns, as a signature that is held with words
    verdict    the diagnosis; explanation finds a mistake that nobody listed, in the table of transformations
    diagnosis  where two plain values differ
    lesson     the file that everything else is made from
    build      its two notebooks; outputs says what they may show
    lab        runs to be told apart by what they do; predictions holds what a student expects of a run
    claims     what the lessons measured of the lecture's claims, on one page
    work       a student's own copies, and how an update is merged into them
    tour       the course on one page
    recorded   runs on larger machines, shown beside a student's own
    doctor     what this machine has, which lessons run on it, and what to change
    cli        the command `ptlearn`

Importing it is cheap: the heavy libraries are imported where they are used.
"""
