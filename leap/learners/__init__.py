"""Learners of initializations: one file a rule, each a `leap.walk.Fold`."""

from leap.learners.finetune import finetune
from leap.learners.hat import hat
from leap.learners.leap import leap
from leap.learners.maml import anil, fomaml, maml, meta_sgd
from leap.learners.none import none
from leap.learners.progressive import progressive
from leap.learners.reptile import reptile

__all__ = ["anil", "finetune", "fomaml", "hat", "leap", "maml", "meta_sgd", "none", "progressive", "reptile"]
