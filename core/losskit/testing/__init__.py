"""The laws that every component keeps, as functions for anybody's tests.

    from losskit.testing import examine

    def test_my_loss_has_no_findings():
        report = examine("my-loss")
        assert report.fine, report.findings

One test for each law and each kind of data:

    from losskit.testing import laws, subjects

    @pytest.mark.parametrize("law", laws("loss"), ids=str)
    @pytest.mark.parametrize("subject", subjects(MyLoss), ids=str)
    def test_laws(subject, law):
        assert law(subject).fine

Toy encoders and random batches serve tests of formulas as well.
"""

from .batches import Batch, random_batch
from .catalogue import check, laws
from .compare import Result, Violation, differentiate, require_equal, total
from .examine import examine
from .law import Check, Law, NotApplicable, Skipped, law
from .subject import Subject, subjects
from .toys import ToyEncoder

__all__ = [
    "Batch",
    "Check",
    "Law",
    "NotApplicable",
    "Result",
    "Skipped",
    "Subject",
    "ToyEncoder",
    "Violation",
    "check",
    "differentiate",
    "examine",
    "law",
    "laws",
    "random_batch",
    "require_equal",
    "subjects",
    "total",
]
