"""A language model at work: loaded, sampled from, talked to, prompted.

    models       load a language model by name: "pocket-s|m|l", a local folder, a hub id; how documents begin and end
    text         text in, text out: encode, sample into a Rollout, complete greedily, score
    attention    where the heads look, and heads switched off
    decoding     the fast step behind the sampling
    shared_prefixes  texts that begin alike as trees, which a model reads once
    padding_free what a loss asks of a small model on a CPU, and no more
    checksums    what the files of a model were when they were written
    devices      the device a model is put on, and whether a step fits there
    real_model   a real model fetched once and kept in the user's cache: smollm2-135m
    hub_data     a dataset of the hub as a file of JSON objects
    from_gguf    the weights and tokenizer of a GGUF file in an ordinary folder
    fast_sampling  a sampler apart from the learner, with its own copy of the weights and, on a GPU, CUDA graphs;
                 joined_weights is that copy, decode_attention its kernel, vllm_sampling the same call to vLLM
    chat         conversations: templates, response masks, packing, files of instruction data
    prompting    few-shot prompts, scores of choices, calibration, metrics
"""
