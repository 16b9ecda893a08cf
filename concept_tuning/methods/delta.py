"""DELTA: keep what the pre-trained feature map shows (Li et al., ICLR 2019, arXiv 1901.09229)."""

from __future__ import annotations

from typing import ClassVar

from concept_tuning.methods.l2_sp import L2Sp


class Delta(L2Sp):
    """Cross-entropy, alpha times the feature map's distance from its start, and beta/2 |w|^2 of the classifier.

    It is built as L2-SP is and differs in the distance. The paper regularises several layers of a ResNet; here it is
    the last feature map, which every backbone has and for which the channels' attention (equation 6) needs no pass
    for each channel.
    """

    name = "delta"
    summary = "Plain fine-tuning that keeps the feature map, most of all its channels that matter."
    reference = "Li et al., ICLR 2019, arXiv 1901.09229, equations 3, 5 and 6"
    kind: ClassVar[str] = "delta"
