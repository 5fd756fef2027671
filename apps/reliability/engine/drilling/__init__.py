"""What drills do and look at: the Chaos Toolkit provider of the experiment files.

Every function that an experiment names is called inside a clone, or, of a live drill,
beside the install. A look at what happens under the fault is written down; the steady
state after the fault asks for all of them, so that Chaos Toolkit's own verdict
deviates with them. One file per drill; `casting` says what each wants of its clone.
"""
