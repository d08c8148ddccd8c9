"""The pocket world: its facts, its documents, its requests, its tasks, and the language models that know nothing else.

    world, relations, french, tales   facts, key-value lists, sentences with agreement, stories and reviews
    corpus                            the documents that the models were pretrained on
    assistant, verifiers, benchmarks  requests with verifiers by use case; data in the format of NLP benchmarks
    tasks                             sums, translation, praise, lists, sorting, copying, to learn by reward
    instruction                       finetuning on kinds and numbers of examples, as a table with its recipe
    teacher, imitation                a finetuned teacher, and students of its answers
    form_and_fact, filtering          what such students sound like and know; what a novelty filter is worth
    data_contest, rl_contest          examples of which some make an assistant; 600 answers to learn sums from
    lora_rates                        LoRA by rank and learning rate, as a table with its recipe
    scaling                           nano models for a scaling law, as a table with its recipe
    tokenizer, pretrain, probes       how the models were made, and what they can do
    cards                             what the shipped models say about themselves
"""
