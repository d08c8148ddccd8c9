"""Learning from examples.

    sft                  supervised finetuning: the one loss with weights 1
    synthetic            Self-Instruct: a model writes the examples; filters, yields
    parameter_efficient  last_k, bitfit, adapters, lora; merge and switch
    wrappers             the layers that these insert
    adapter_files        LoRA adapters in peft's format, both directions; a merged model as an ordinary folder
    memory               parameters and bytes of finetuning, counted before anything is allocated
    throughput           FLOPs, matrix rate, tokens per second: how much of a device a run uses; compiled layers
"""
