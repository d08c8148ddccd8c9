"""Learning from rewards, in worlds and on text.

    policies         tables and small networks as policies and critics
    training         the loop: collect, score, weigh, step, record
    tasks            prompts with a verifier; general verifiers, pass@k, GSM8K
    text_collection  a language model at work on a task: completions with rewards
    enumeration      all texts of a tiny model: exact J and its gradient, for text
    preferences      reward models from pairs, DPO as weights of the same loss, best of n
"""
