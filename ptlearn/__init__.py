"""Post-training of language models, from prompting to reinforcement learning on text, small enough to read.

A house of wings on one ground floor; a wing imports only what stands below it in this list.

    course          the classroom: building notebooks, checking and grading exercises, the tour
    pocket          the pocket world, its tasks, and the language models that were pretrained on it
    rl              learning from rewards: policies, the training loop, tasks with verifiers, preferences
    finetuning      learning from examples: supervised finetuning, LoRA and its relatives, synthetic data
    lm              a language model at work: loading, sampling, scoring, chat, prompting
    grid            a world with exact answers: MDPs, the grid world, collecting episodes

The ground floor, in the order to read it:

    rollout          the record that flows; log-probabilities of taken actions; the behaviour check
    policy_gradient  one loss and every weight of the course
    optimization     one gradient step: micro-batches, clipping
    checkpoints      a run's state in one object and one file, to resume exactly
    statistics       a number with its interval, over items and over seeds
    figures          learning curves, value maps, token heat maps

Nothing is re-exported: `from ptlearn.rollout import Rollout` says where a name lives, and `import ptlearn` stays fast.
"""

import warnings

__version__ = "1.0.0"

# Libraries that this course loads ask for a bar that is a widget; without widgets they say so on stderr, in red.
warnings.filterwarnings("ignore", message="IProgress not found")
