"""The demo's third tab: the method in half a page, with the causal graph behind the front-door head."""

from __future__ import annotations

#: Said before the text where it is about neither run.
NEITHER = "Neither of these two networks was trained by Concept-Tuning, which this page is about."
TEXT = """
## What Concept-Tuning does

Fine-tuning a pre-trained network as usual (`vanilla`) can do harm, called *negative transfer*, in two ways:

1. **Rare features are missed.** Pre-training made some features strong. A detail that decides the new task, but was
   seldom seen before, hardly gets a say.
2. **Shortcuts are kept.** If one class is mostly photographed before one background, the background predicts the
   class, until somebody photographs it elsewhere.

**Concept-Tuning** takes patches of a picture for its *concepts*: it finds the groups of channels that speak most for
a class, and the patch where each group is strongest. Such patches are shown below the maps. Then it

- pulls patches together that show the same rare concept in other pictures of the class, and pushes those of other
  classes away; which patch belongs to which is found by optimal transport;
- adds a second head, the *front-door* head, that averages over what other patches and channels say, by two attentions.
  With the switches you turn each attention off and see what the answer becomes.
"""
FIGURE = """
<figure style="margin:0;max-width:560px">
<svg viewBox="0 0 560 190" role="img" style="width:100%;background:#fff;border-radius:8px" font-family="sans-serif"
 font-size="15" aria-label="The place acts on the picture and on the answer; the picture acts on the answer only
 through what is read off it.">
<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">
<path d="M0 0 L10 5 L0 10 z" fill="context-stroke"/></marker></defs>
<g fill="none" stroke-width="3" marker-end="url(#tip)">
<path stroke="#D55E00" stroke-dasharray="7 5" d="M235 48 L110 112"/>
<path stroke="#D55E00" stroke-dasharray="7 5" d="M325 48 L462 112"/>
<path stroke="#0072B2" d="M125 135 L208 135"/>
<path stroke="#0072B2" d="M352 135 L438 135"/></g>
<g fill="#fff" stroke="#333" stroke-width="1.5">
<rect x="210" y="12" width="140" height="38" rx="8" stroke-dasharray="6 4"/>
<rect x="20" y="116" width="104" height="38" rx="8"/><rect x="210" y="116" width="140" height="38" rx="8"/>
<rect x="440" y="116" width="100" height="38" rx="8"/></g>
<g fill="#111" text-anchor="middle"><text x="280" y="36">place (unseen)</text><text x="72" y="140">picture</text>
<text x="280" y="140">what is read off</text><text x="490" y="140">answer</text></g>
</svg>
<figcaption>The place decides both which pictures we get and which answer is given (orange), and so becomes a shortcut.
Front-door adjustment keeps only what goes through the picture (blue): it averages what is read off over all pictures;
the two attentions imitate that average.</figcaption>
</figure>
"""
CAVEATS = """
**How to read a map.** Bright places counted most for the class that the network says. A map tells where, not why.
Different kinds of map may disagree, so choose another kind before you believe one. A network that was asked about
something it has never seen, such as your cat, still names one of its classes. And one picture is an anecdote: the
dashboard's reports count over whole test sets, with intervals.

Yang, Huang and Wei: [Concept-wise Fine-tuning Matters in Preventing Negative
Transfer](https://arxiv.org/abs/2311.06868), ICCV 2023. Front-door adjustment: Pearl, *Causal diagrams for empirical
research*, Biometrika 1995.
"""
