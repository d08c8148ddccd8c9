"""The call of `text.sample_text` answered by vLLM, in the same process and on the same GPU as the learner.

Here: `VLLMSampler`, for vLLM from 0.10.2 on. Deliberately not here: vLLM as a server, and models over several GPUs
(docs/going_further.md). Not run on a GPU yet: the calls are those that vLLM documents, their translation is tested.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence

import torch
from torch import Tensor

from ptlearn.lm.joined_weights import plain_weights
from ptlearn.lm.text import check_finite, check_stop, encode_prompts, record, uniform_numbers
from ptlearn.rollout import Rollout, check_sampling


class VLLMSampler:
    """Samples as `text.sample_text` through vLLM, which takes over the model's weights, LoRA added, before each call.

    The engine starts at the first call, on a folder with the model's configuration. It draws with random numbers of its
    own, one seed a row, so that a row's tokens are not those of `sample_text`, but depend on `seed` alone.

    Args:   memory, the share of the GPU's memory that vLLM may use for weights and cache, beside the learner's.
    Raises: ValueError where vllm is not installed.
    """

    def __init__(self, *, memory: float = 0.4):
        try:
            import vllm
        except ImportError as error:
            raise ValueError("vllm is not installed: pip install vllm, or sample with FastSampler") from error
        self.vllm, self.memory, self.engine = vllm, memory, None

    def __call__(
        self, lm, prompts: Sequence[str], *, max_new_tokens: int = 32, temperature: float = 1.0,
        top_k: int | None = None, top_p: float | None = None, stop: str | Sequence[str] = (), seed: int | Tensor = 0,
    ) -> Rollout:  # fmt: skip
        """Args, Returns and Raises as `text.sample_text`."""
        check_sampling(temperature, top_k, top_p)
        stop = check_stop(lm, stop)
        tokens = encode_prompts(lm, prompts, max_new_tokens)
        seeds = uniform_numbers(len(tokens), max_new_tokens, seed)[:, 0].double().mul(2**31).long().tolist()
        settings = {
            "max_tokens": max_new_tokens, "temperature": temperature, "top_k": top_k or 0, "top_p": top_p or 1.0,
            "stop": list(stop), "stop_token_ids": list(lm.end_tokens), "ignore_eos": True, "logprobs": 0,
            "skip_special_tokens": False,
        }  # fmt: skip
        self._take_over(lm)
        rows = [{"prompt_token_ids": ids} for ids in tokens]
        each = [self.vllm.SamplingParams(seed=row, **settings) for row in seeds]
        answers = [answer.outputs[0] for answer in self.engine.generate(rows, each, use_tqdm=False)]
        sampled = [list(answer.token_ids) for answer in answers]
        logprobs = [
            torch.tensor([scores[token].logprob for token, scores in zip(ids, answer.logprobs, strict=True)])
            for ids, answer in zip(sampled, answers, strict=True)
        ]
        check_finite(lm, *logprobs)
        return record(lm, tokens, sampled, logprobs, [answer.finish_reason == "stop" for answer in answers])

    def _take_over(self, lm) -> None:
        """Load the current weights into the model inside the engine, which renames and joins them itself."""
        if self.engine is None:
            os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # in this process: tensors are handed over, not sent
            self.folder = tempfile.TemporaryDirectory()
            for part in (lm.model.config, lm.tokenizer):
                part.save_pretrained(self.folder.name)
            # log-probabilities as drawn, temperature and truncation included; random weights until the next lines
            self.engine = self.vllm.LLM(
                self.folder.name, load_format="dummy", dtype="bfloat16", max_model_len=lm.context,
                gpu_memory_utilization=self.memory, logprobs_mode="processed_logprobs",
            )  # fmt: skip
        weights = list(plain_weights(lm.model))
        self.engine.apply_model(lambda model: len(model.load_weights(weights)))
        self.engine.reset_prefix_cache()  # what was read with the old weights
