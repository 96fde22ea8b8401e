"""Faster ways to run a network than torch in float32, and the choice among them.

``calibrate_now`` measures and chooses, ``follow_choice`` takes up what was chosen on this machine before,
``choose_while_encoding`` does whichever is due on the first frames of a job (all three in ``paths.prepare``). A new
path is a function and one line in ``paths.known``.
"""
