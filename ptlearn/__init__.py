"""Post-training of language models, from prompting to reinforcement learning on text, small enough to read.

Read the modules in this order; each lesson builds a part of one by hand and then goes on with the tested version.

    rollout              the record that flows; log-probabilities of taken actions; the behaviour check
    policy_gradient      one loss and every weight of the course
    mdp, gridworld       a world with exact answers, and the same world as an environment
    collection           episodes by the thousand, from arrays or from any environment
    policies             tables and small networks as policies and critics
    models               load a language model by name: "pocket-s|m|l", a local folder, a hub id
    text, decoding       sampling text into a Rollout, scoring text; the fast step behind the sampling
    chat                 conversations: templates, response masks, packing, files of instruction data
    prompting, tasks     templates and few-shot prompts; prompts with a verifier
    text_collection      a language model at work on a task: completions with rewards
    enumeration          all texts of a tiny model: exact J and its gradient, for text
    synthetic            Self-Instruct: generate, filter, deduplicate
    parameter_efficient  last_k, bitfit, adapters, lora; merge and switch; the layers they insert are in wrappers
    adapter_files        LoRA adapters in peft's format, both directions
    memory               parameters and bytes of finetuning, counted before anything is allocated
    checkpoints          a run's state in one file, to resume exactly
    training             the loops: supervised finetuning and policy gradients
    preferences          reward models from pairs, DPO as weights of the same loss, best-of-n
    figures              learning curves, value maps, token heat maps
    pocket               the pocket world and its language models
    course               the classroom: building notebooks, checking and grading exercises

Nothing is re-exported: `from ptlearn.rollout import Rollout` says where a name lives, and `import ptlearn` stays fast.
"""

import warnings

__version__ = "0.1.0"

# Libraries that this course loads ask for a bar that is a widget; without widgets they say so on stderr, in red.
warnings.filterwarnings("ignore", message="IProgress not found")
