"""Where regularization silently goes wrong, and what proves that arspec does not.

Each row is right or loud, never silent. The proof is a test whose name begins with the id of
the row, such as `test_c2_...`, or a clause of the suite.
"""

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

RIGHT, LOUD, OPEN = "right", "loud", "OPEN"


@dataclass(frozen=True, slots=True)
class Trap:
    """One row.

    Attributes
    ----------
    id : such as "C2".
    sentence : what goes wrong elsewhere.
    stance : RIGHT where arspec gives the right number, LOUD where it raises.
    clauses : the clauses that prove it.
    """

    id: str
    sentence: str
    stance: str
    clauses: tuple[str, ...] = ()


TRAPS = (
    Trap("A1", "The gradient of |x| at 0 differs between frameworks.", RIGHT, ("L1-K1", "L1L2-K1")),
    Trap("A2", "The gradient of a norm at the zero vector is NaN.", RIGHT, ("L2Norm-K1", "GroupLasso-K1")),
    Trap("A3", "Ties, clip bounds and powers have other gradients in every framework.", RIGHT, ("LInf-K2", "Lp-K3")),
    Trap("A4", "Subnormal numbers are flushed inside an operation: a norm divides by 0.", RIGHT, ("GroupLasso-S6",)),
    Trap("A5", "Half precision overflows before it is summed.", RIGHT, ("L2-S6", "L2-S8")),
    Trap("A6", "A coefficient is rounded to the dtype of the tensor.", RIGHT, ("L1-B1", "L1-R1")),
    Trap("A7", "Some have ½ in x², some do not.", RIGHT, ("L2-E1",)),
    Trap("A8", "AR and TAR are not the same in papers and in code.", RIGHT, ("TemporalDifference-E1",)),
    Trap("A9", "The divergence is averaged, instead of taken of the average.", RIGHT, ("KLSparsity-B1",)),
    Trap("A10", "A coefficient of 0, nothing, or one step give 0/0.", RIGHT, ("L1-S3", "L1-S5", "L1-S7")),
    Trap("A11", "A custom penalty that returns no scalar fails far away from its cause.", LOUD),
    Trap("B1", "Keras divided by the batch in some versions and not in others.", RIGHT, ("Model-P6",)),
    Trap("B2", "The first axis is taken for the batch, whatever it is.", RIGHT, ("L1-B3",)),
    Trap("B3", "Padded steps are penalized.", RIGHT, ("L1-S4",)),
    Trap("B4", "A layer wrapped over time loses its penalty.", RIGHT),
    Trap("B5", "A layer with several outputs is penalized several times.", RIGHT, ("Model-P15",)),
    Trap("B6", "One argument of an attention makes up to five losses.", RIGHT),
    Trap("B7", "Sparse autoencoders sum over features and average over all other axes.", RIGHT, ("L1-B2",)),
    Trap("B8", "Data parallel training divides, or multiplies, a penalty by the number of replicas.", RIGHT),
    Trap("C1", "Before or after the activation function is not said.", RIGHT, ("Model-P1", "Model-P2")),
    Trap("C2", "An activation in place overwrites what was captured.", RIGHT),
    Trap("C3", "A compiler skips hooks without a word.", RIGHT),
    Trap("C4", "Checkpointing calls hooks twice, or gives no gradient.", RIGHT),
    Trap("C5", "A sum over a sharded tensor is a sum over one shard.", RIGHT),
    Trap("C6", "Some tensors never pass through a hook.", LOUD, ("Model-P11",)),
    Trap("C7", "Tied weights count twice.", RIGHT, ("Model-P8",)),
    Trap("C8", "Frozen weights are penalized in one version and not in the next.", RIGHT, ("Model-P18",)),
    Trap("C9", "Editing a built Keras layer changes what it says and not what it does.", RIGHT),
    Trap("C10", "A recurrent cell with an activity regularizer is penalized per step, twice at the first.", RIGHT),
    Trap("C11", "Flax collects losses that nobody reads, or twice.", RIGHT),
    Trap("C12", "Rematerialization and an activity regularizer crash.", RIGHT),
    Trap("C13", "Statistics and random states are taken for parameters.", RIGHT, ("Model-P17",)),
    Trap("C14", "An LSTM has one bias here and two there.", RIGHT),
    Trap("C15", "A default argument or a string makes a penalty of 0.", LOUD),
    Trap("C16", "Loss scaling and accumulation change the weight of a penalty.", RIGHT),
    Trap("C17", "Some add penalties in evaluation, some do not.", RIGHT),
    Trap("C18", "A regularizer is lost on save, or never fires.", LOUD, ("Model-P11",)),
    Trap("C19", "State in globals leaks between models, threads and traces.", RIGHT, ("L1-M1", "Model-P10")),
)


@dataclass(frozen=True, slots=True)
class Proof:
    """What was found for one row: the names of tests, by the file they stand in."""

    trap: Trap
    tests: tuple[str, ...]

    @property
    def status(self) -> str:
        """RIGHT or LOUD where something proves it, else OPEN."""
        return self.trap.stance if self.tests or self.trap.clauses else OPEN


def proofs(tests: Mapping[str, Sequence[str]]) -> list[Proof]:
    """Return every row with its tests, given the names of tests by their files."""
    found: dict[str, list[str]] = {trap.id: [] for trap in TRAPS}
    for file, names in tests.items():
        for name in names:
            for row in rows_of(name):
                if row in found:
                    found[row].append(f"{file}::{name}")
    return [Proof(trap, tuple(found[trap.id])) for trap in TRAPS]


def rows_of(name: str) -> list[str]:
    """Return the ids with which a test's name begins: test_c2_c4_x is of C2 and C4."""
    met = re.match(r"test_((?:[abc]\d+_)+)", name)
    return [part.upper() for part in met.group(1).split("_") if part] if met else []


def named_tests(folder: Path) -> dict[str, list[str]]:
    """Return the names of the test functions below a folder, by their files; none is imported."""
    found = {}
    for path in sorted(folder.rglob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        found[path.relative_to(folder).as_posix()] = [f.name for f in functions if f.name.startswith("test_")]
    return found
