"""An LSTM encoder–decoder with activity regularization: the description of the study."""

from arspec_studies._study.study import Metric, Study, Variant
from arspec_studies.encoder_decoder.data import measure, task

STUDY = Study(
    name="encoder-decoder",
    title="An LSTM encoder–decoder: activity regularization on the code",
    question="An encoder squeezes a sequence into one state, a decoder writes it backwards. Does a penalty on the "
    "states of the encoder help the decoder with sequences it has not seen?",
    source="the usual LSTM autoencoder examples, where activity regularization is put on the encoder; no published "
    "numbers.",
    setting="Sequences of 5 of 8 symbols are to be reversed: 1000 to train, 500 others to test, drawn anew for each "
    "seed. Embedding 16, LSTM 48, its last state repeated, LSTM 48, softmax; Adam (0.005), batches of 50, 40 epochs. "
    "The penalty sees the hidden state after every step, summed over units, averaged over batch and time; TAR is the "
    "square of its steps.",
    reading="An activity_regularizer of Keras would see the last state alone, since the layer returns nothing else; "
    "the placement hidden_state is every step, in every framework. Test sequences differ from those to train, so the "
    "gap between both columns is what a penalty could close.",
    variants=(
        Variant("baseline", "no penalty"),
        Variant("l1", "L1 on the states", coefficients=(1e-1, 1e-2)),
        Variant("l2", "L2 on the states", coefficients=(1e-1, 1e-2)),
        Variant("tar", "TAR on the states", coefficients=(1e-1, 1e-2)),
    ),
    metrics=(
        Metric("test", "test symbols right (%)", scale=100, digits=2),
        Metric("train", "train symbols right (%)", scale=100, digits=2),
        Metric("square", "mean h²", None, digits=4),
        Metric("step", "mean (Δh)²", None, digits=4),
    ),
    task=task,
    measure=measure,
    seeds=5,
)
