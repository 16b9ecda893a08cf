"""DELTA: keep what the pre-trained feature map shows (Li et al., ICLR 2019, arXiv 1901.09229).

It departs from the paper and its authors' code (github.com/lixingjian/DELTA; the Transfer-Learning-Library's is alike):

- Theirs keeps the outputs of four convolutions of a ResNet, one for each stage and before its batch norm. Here it is
  the backbone's last feature map, as the classifier sees it, which every backbone has and whose channels' attention
  needs no pass for each channel. One layer instead of four holds the network less for the same alpha.
- Theirs sums the distance over the images of a batch, here it is their mean. The default alpha, 0.48, is their 0.01
  times the library's batch of 48, so that at this batch the term of this layer has the library's weight, and at
  another batch it keeps it. The authors' own batch of 64 would make it 0.64.
- Theirs divides by the cells of a feature map with attention alone. Here it does without attention too, so that alpha
  means the same with and without.
- Theirs finds the attention with a classifier trained by gradient steps, here it is a logistic regression on the
  features at the start.
"""

from __future__ import annotations

from typing import ClassVar

from concept_tuning.methods.l2_sp import L2Sp


class Delta(L2Sp):
    """Cross-entropy, alpha times the feature map's distance from its start, and beta/2 |w|^2 of the classifier.

    It is built as L2-SP is and differs in the distance; the module says what differs from the paper. As there,
    ``optim.weight_decay`` has no effect.
    """

    name = "delta"
    summary = "Plain fine-tuning that keeps the feature map, most of all its channels that matter."
    reference = "Li et al., ICLR 2019, arXiv 1901.09229, equations 3, 5 and 6"
    kind: ClassVar[str] = "delta"
