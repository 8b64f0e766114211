"""Reference layers: what every placement means, in NumPy and float64.

Each layer computes all its named tensors (`forward`) and, from the gradients of any of
them, those of its input and its parameters (`backward`). `Network` chains them and
evaluates a Spec: the numbers that adapters are compared with. They are a definition, made
to be read and checked, and no framework: nothing here trains or is fast.

`import arspec` does not import this package.
"""

from arspec.layers._attention import MultiHeadAttention as MultiHeadAttention
from arspec.layers._bidirectional import Bidirectional as Bidirectional
from arspec.layers._convolution import Convolution as Convolution
from arspec.layers._dense import Activation as Activation
from arspec.layers._dense import Dense as Dense
from arspec.layers._dense import Flatten as Flatten
from arspec.layers._depthwise import DepthwiseConvolution as DepthwiseConvolution
from arspec.layers._depthwise import SeparableConvolution as SeparableConvolution
from arspec.layers._embedding import Embedding as Embedding
from arspec.layers._gru import GRU as GRU
from arspec.layers._layer import Record as Record
from arspec.layers._layer import ReferenceLayer as ReferenceLayer
from arspec.layers._lstm import LSTM as LSTM
from arspec.layers._network import Network as Network
from arspec.layers._network import Penalties as Penalties
from arspec.layers._normalization import BatchNormalization as BatchNormalization
from arspec.layers._normalization import LayerNormalization as LayerNormalization
from arspec.layers._recurrent import Recurrent as Recurrent
from arspec.layers._recurrent import mask_of_lengths as mask_of_lengths
from arspec.layers._simple_rnn import SimpleRNN as SimpleRNN
