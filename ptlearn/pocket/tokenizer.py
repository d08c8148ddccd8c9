"""The one tokenizer of all pocket LMs: byte-level BPE trained on the pocket corpus.

`python -m ptlearn.pocket.tokenizer` makes `weights/tokenizer.json` again, byte for byte.
"""

from itertools import islice
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from ptlearn.pocket import corpus

PATH = Path(__file__).parent / "weights" / "tokenizer.json"
SIZE = 4000
# A word keeps the space before it; digits stand alone, so that arithmetic sees them one by one; newlines stand alone.
PIECES = Regex(r" ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\n|\s")


def train_tokenizer(documents: int = 60_000, seed: int = 0, size: int = SIZE) -> Tokenizer:
    """Train on the first `documents` documents of the corpus; the end token has id 0."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(PIECES, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[corpus.END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(islice(corpus.documents(seed), documents), trainer)
    return tokenizer


if __name__ == "__main__":
    PATH.parent.mkdir(parents=True, exist_ok=True)
    train_tokenizer().save(str(PATH))
    print(f"{PATH.name}: {SIZE} tokens")
