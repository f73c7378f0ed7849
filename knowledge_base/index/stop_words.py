"""Words that tell nothing about what is asked for, as the analyzer writes them: without case and apostrophes."""

from __future__ import annotations

# Snowball's list without the words that are also something else once their apostrophe is gone (hell, id, shed, …).
_ENGLISH = """
i me my myself we our ours ourselves you your yours yourself yourselves he him his himself she her hers herself
it its itself they them their theirs themselves
what which who whom whose this that these those when where why how
am is are was were be been being have has had having do does did doing
will would shall should can could may might must ought cannot
im ive youre youve weve theyre theyve
isnt arent wasnt werent hasnt havent hadnt doesnt dont didnt wont wouldnt shant shouldnt cant couldnt mustnt
a an the and but if or because as until while of at by for with about against between into through during before
after above below to from up upon down in out on off over under again further then once here there
all any both each few more most other some such no nor not only own same so than too very also
s t
"""

BY_LANGUAGE = {"english": frozenset(_ENGLISH.split())}
