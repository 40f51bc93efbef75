//! Fields that steer the engine and not the answer: in which order it serves, which cache it reads, where it sends what it
//! computed, under which name it knows the call. What a caller writes there would reach other callers, so a replica does not
//! get it. An administrator may let fields through for one model, with the annotation `tollgate.dev/allowed-request-fields`.

/// Of vLLM's request types first, then of other servers and of what vLLM's took formerly.
pub(super) const FIELDS: [&str; 31] = [
    // Order: lower values go first, and others wait.
    "priority",
    "service_tier",
    // The name of a call in the engine, in its logs and in the answer: two calls of one name are one.
    "request_id",
    // Which cached blocks a call may read, and whether others can tell what it asked.
    "cache_salt",
    "prompt_cache_key",
    "prompt_cache_retention",
    "prompt_cache_options",
    // Where the cache or an encoder's output is fetched from and sent to.
    "kv_transfer_params",
    "ec_transfer_params",
    // Arguments of the server's plug-ins.
    "vllm_xargs",
    // How pictures, audio and video are loaded and cut: they decide what a prompt costs, beyond every bound.
    "media_io_kwargs",
    "mm_processor_kwargs",
    // Programs that the server runs.
    "chat_template",
    "logits_processors",
    "custom_logit_processor",
    "guided_decoding_backend",
    // Names and places in SGLang, Dynamo and TensorRT-LLM.
    "rid",
    "routing_key",
    "extra_key",
    "session_params",
    "session_id",
    "data_parallel_rank",
    "routed_dp_rank",
    "disagg_prefill_dp_rank",
    "bootstrap_host",
    "bootstrap_port",
    "bootstrap_room",
    "lora_path",
    "lora_request",
    "disaggregated_params",
    "nvext",
];
