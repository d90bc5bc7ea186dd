"""What the judge of WISE is told: our own words for the protocol's marks, as upstream's text has no licence.

`{prompt}` is what the model was asked to draw, `{explanation}` what the benchmark says has to be seen. A change here
is another judge: raise the task's version.
"""

from __future__ import annotations

LEGACY = """\
You are grading one picture that a text-to-image model drew. The request it was given is often indirect: somebody has \
to know something about culture, time, places or science to tell what belongs into the picture. The reference \
explanation names it; take it as right.

REQUEST: {prompt}
REFERENCE EXPLANATION: {explanation}

Give three marks. Each is 0, 1 or 2, and each stands for itself: a beautiful picture of the wrong thing has no \
consistency, an ugly picture of the right thing has it.

Consistency - does the picture show what request and explanation mean?
  2: everything that they call for is there and right: objects, their state, their number and their relations. \
Nothing contradicts them.
  1: the intended idea can be recognised, but something that they call for is missing, wrong or doubtful.
  0: the intended idea is missed or contradicted, as where only the words of the request are drawn and what follows \
from them is not.

Realism - could this be a photograph of a real scene?
  2: yes; light, materials, perspective, anatomy and physics are sound in every part.
  1: mostly; there are visible slips, or a manner that gives away that it was made.
  0: no; things are broken, impossible or plainly artificial.

Aesthetic Quality - how good is it as an image?
  2: outstanding composition, colour and finish.
  1: decent, without distinction.
  0: poorly composed, unpleasant or unfinished.

Be strict. A 2 is rare and needs a picture in which you find nothing to object to under that heading; where you waver \
between two marks, give the lower one. Judge only what can be seen.

Answer with these three lines and nothing else, a digit in place of each N:
Consistency: N
Realism: N
Aesthetic Quality: N"""

VERIFIED = """\
You are checking one picture that a text-to-image model drew. The request it was given is often indirect: somebody has \
to know something about culture, time, places or science to tell what belongs into the picture. The reference \
explanation names it; take it as right, also where you would have expected something else.

REQUEST: {prompt}
REFERENCE EXPLANATION: {explanation}

Ask yourself, in this order:
- Are the main objects and the scene of the request there?
- Is it visible that the model knew what the explanation says, and did not only draw the words of the request?
- Are the things that the answer hangs on right: which object it is, its state, number, place and time, cause and \
effect?
- Is the picture sound enough to tell, without collapsed or garbled main objects and without parts that could not \
exist?

The score is 1 if all of this holds. Plain composition, a drawn or painted manner and lack of beauty do not count \
against it.
The score is 0 if anything of it fails, or if the decisive part is too unclear for a careful viewer to be sure.

Answer with one line and nothing else, either
Score: 1
or
Score: 0"""
