"""LAION's cuts on similarity: the CLIP that they belong to, and how strict they are."""

from __future__ import annotations

LAION_CUTS = (0.28, 0.30)  # of LAION-2B-en and LAION-400M


LAION_CLIP = "ViT-B-32-quickgelu openai"  # the model both were cut with


LAION_FALSE_KEEP = 0.0015
"""The share of wrong captions that pass LAION's cuts with LAION's CLIP, at most (95 %).

Of 8,421 cosines of OpenAI's ViT-B/32 (the 7 test photographs of rom1504/clip-retrieval x the 1,203
LVIS class names that Detic encoded as "a {name}") none reaches 0.28; the highest is 0.2651, a
kitten's with "a kitten". The names that pass a cut crowd on few photographs: at 0.24 and 0.25 their
counts vary two to four times as much between photographs as independent pairs' would, so that the
8,421 are worth about 2,100, and zero of 2,100 means less than 3 / 2,100 (rule of three).

It is an upper bound, so the cut it gives for another CLIP is the lowest that is as strict. It is a
bound for names, on seven photographs: web alt texts are longer and their cosines spread wider, so
more of them may pass. Scoring the same pairs with both CLIPs (``python -m curate.calibrate RUN --like
RUN2``) is more precise.
"""
