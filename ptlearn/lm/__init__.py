"""A language model at work: loaded, sampled from, talked to, prompted.

    models       load a language model by name: "pocket-s|m|l", a local folder, a hub id; how documents begin and end
    text         text in, text out: encode, sample into a Rollout, complete greedily, score
    decoding     the fast step behind the sampling
    chat         conversations: templates, response masks, packing, files of instruction data
    prompting    few-shot prompts, scores of choices, calibration, metrics
    devices      the device of a run, and one line where it is absent, lacks bfloat16, or its memory is too small
"""
