"""Small configurations of the transformers library: class, configuration, options, and the inputs of the model."""

IDS = {"input_ids": ((16,), 64)}
PAIR = {"input_ids": ((16,), 64), "decoder_input_ids": ((16,), 64)}


def pixels(size):
    return {"pixel_values": ((3, size, size), None)}


def samples(*shape, name="input_values"):
    return {name: (shape, None)}


HEADS = dict(num_hidden_layers=2, num_attention_heads=4, intermediate_size=64)
TEXT = dict(vocab_size=64, hidden_size=32, max_position_embeddings=64, **HEADS)
TOKENS = dict(bos_token_id=0, eos_token_id=0, pad_token_id=0, use_cache=False)
ENDS = dict(bos_token_id=0, eos_token_id=0, use_cache=False)
GROUPED = dict(**TEXT, **TOKENS, num_key_value_heads=2)
GPT = dict(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=64, **ENDS)
BART = dict(vocab_size=64, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
            decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64, use_cache=False)
VIT = dict(hidden_size=32, image_size=64, **HEADS)
SPEECH = dict(vocab_size=32, hidden_size=32, conv_dim=(16, 16, 16), conv_kernel=(10, 3, 3), conv_stride=(5, 2, 2),
              num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4, num_feat_extract_layers=3,
              apply_spec_augment=False, layerdrop=0.0, **HEADS)
SWIN = dict(embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4, image_size=64)
STAGES = dict(hidden_sizes=[8, 16, 16, 32], depths=[1, 1, 1, 1])


def masked(family, inputs=IDS, **options):
    return f"{family}ForMaskedLM", f"{family}Config", dict(TEXT, **options), inputs


def causal(family, options, inputs=IDS):
    return f"{family}ForCausalLM", f"{family}Config", options, inputs


def generation(family, options, kind="ForConditionalGeneration", inputs=PAIR):
    return f"{family}{kind}", f"{family}Config", options, inputs


def classifier(family, options, size=64, kind="ForImageClassification"):
    return f"{family}{kind}", f"{family}Config", options, pixels(size)


def table():
    """{name: (class, configuration, options, {input: (shape of a sample, bound of ids or None)})}"""
    relative = dict(relative_attention=True, pos_att_type=["c2p", "p2c"])
    return {
        "albert": masked("Albert", embedding_size=16),
        "convbert": masked("ConvBert", embedding_size=32, conv_kernel_size=3, head_ratio=2),
        "deberta": masked("Deberta", max_relative_positions=16, **relative),
        "deberta_v2": masked("DebertaV2", position_buckets=8, **relative),
        "electra": masked("Electra", embedding_size=16),
        "modernbert": masked("ModernBert", pad_token_id=0, bos_token_id=0, eos_token_id=0, cls_token_id=0, sep_token_id=0,
                             local_attention=8),
        "mpnet": masked("MPNet"),
        "nystromformer": masked("Nystromformer", num_landmarks=8, segment_means_seq_len=16),
        "roberta": masked("Roberta", pad_token_id=1),
        "squeezebert": masked("SqueezeBert", embedding_size=32),
        "xlm_roberta": ("XLMRobertaForSequenceClassification", "XLMRobertaConfig", TEXT, IDS),
        "mobilebert": ("MobileBertForMaskedLM", "MobileBertConfig",
                       dict(vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                            intermediate_size=32, embedding_size=16, intra_bottleneck_size=16), IDS),
        "fnet": ("FNetForMaskedLM", "FNetConfig",
                 dict(vocab_size=64, hidden_size=32, num_hidden_layers=2, intermediate_size=64), IDS),
        "funnel": ("FunnelForMaskedLM", "FunnelConfig",
                   dict(vocab_size=64, d_model=32, n_head=4, d_head=8, d_inner=64, block_sizes=[1, 1]), IDS),
        "xlnet": ("XLNetLMHeadModel", "XLNetConfig",
                  dict(vocab_size=64, d_model=32, n_layer=2, n_head=4, d_inner=64), IDS),
        "perceiver": ("PerceiverForMaskedLM", "PerceiverConfig",
                      dict(vocab_size=64, d_model=32, d_latents=32, num_latents=8, num_blocks=1,
                           num_self_attends_per_block=2, num_self_attention_heads=4, num_cross_attention_heads=4,
                           max_position_embeddings=16, qk_channels=32, v_channels=32), IDS),
        "bloom": causal("Bloom", dict(vocab_size=64, hidden_size=32, n_layer=2, n_head=4, **TOKENS)),
        "codegen": causal("CodeGen", dict(GPT, rotary_dim=4)),
        "cohere": causal("Cohere", GROUPED),
        "falcon": causal("Falcon", dict(vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, **TOKENS)),
        "gemma": causal("Gemma", dict(GROUPED, head_dim=8)),
        "gemma2": causal("Gemma2", dict(GROUPED, head_dim=8, sliding_window=8)),
        "gemma3": ("Gemma3ForCausalLM", "Gemma3TextConfig", dict(GROUPED, head_dim=8, sliding_window=8), IDS),
        "glm": causal("Glm", dict(GROUPED, head_dim=8)),
        "gpt_bigcode": causal("GPTBigCode", GPT),
        "gpt_neo": causal("GPTNeo", dict(vocab_size=64, hidden_size=32, num_layers=2, num_heads=4, intermediate_size=64,
                                         attention_types=[[["global", "local"], 1]], window_size=8,
                                         max_position_embeddings=64, **TOKENS)),
        "gpt_neox": causal("GPTNeoX", dict(TEXT, **TOKENS)),
        "gptj": causal("GPTJ", dict(GPT, rotary_dim=4)),
        "granite": causal("Granite", GROUPED),
        "mamba": causal("Mamba", dict(vocab_size=64, hidden_size=32, num_hidden_layers=1, state_size=4, **TOKENS)),
        "mistral": causal("Mistral", dict(GROUPED, sliding_window=8)),
        "mixtral": causal("Mixtral", dict(GROUPED, num_local_experts=4)),
        "mpt": causal("Mpt", dict(vocab_size=64, d_model=32, n_layers=2, n_heads=4, expansion_ratio=2, max_seq_len=64,
                                  use_cache=False)),
        "olmo2": causal("Olmo2", GROUPED),
        "olmoe": causal("Olmoe", dict(GROUPED, num_experts=4, num_experts_per_tok=2)),
        "opt": causal("OPT", dict(vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, ffn_dim=64,
                                  max_position_embeddings=64, word_embed_proj_dim=32, **TOKENS)),
        "phi": causal("Phi", dict(TEXT, **TOKENS)),
        "phi3": causal("Phi3", GROUPED),
        "qwen2": causal("Qwen2", GROUPED),
        "qwen3": causal("Qwen3", dict(GROUPED, head_dim=8)),
        "rwkv": causal("Rwkv", dict(vocab_size=64, hidden_size=32, num_hidden_layers=2, attention_hidden_size=32, **TOKENS)),
        "smollm3": causal("SmolLM3", GROUPED),
        "stablelm": causal("StableLm", GROUPED),
        "starcoder2": causal("Starcoder2", GROUPED),
        "bart": generation("Bart", dict(BART, max_position_embeddings=64)),
        "marian": generation("Marian", dict(BART, max_position_embeddings=64, pad_token_id=0, decoder_start_token_id=0),
                             kind="MTModel"),
        "mbart": generation("MBart", dict(BART, max_position_embeddings=64)),
        "mt5": generation("MT5", dict(vocab_size=64, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, use_cache=False,
                                      decoder_start_token_id=0)),
        "pegasus": generation("Pegasus", dict(BART, max_position_embeddings=64, pad_token_id=0)),
        "whisper": generation("Whisper", dict(BART, max_source_positions=50, max_target_positions=32, num_mel_bins=20,
                                              pad_token_id=0, bos_token_id=0, eos_token_id=0, decoder_start_token_id=0,
                                              suppress_tokens=None, begin_suppress_tokens=None, layerdrop=0.0),
                              inputs={"input_features": ((20, 100), None), "decoder_input_ids": ((16,), 64)}),
        "beit": classifier("Beit", dict(VIT, use_relative_position_bias=True)),
        "bit": classifier("Bit", dict(embedding_size=8, hidden_sizes=[32, 32, 64, 64], depths=[1, 1, 1, 1], num_groups=4)),
        "clip_text": ("CLIPTextModelWithProjection", "CLIPTextConfig", dict(TEXT, projection_dim=16), IDS),
        "clip_vision": classifier("CLIPVision", dict(VIT, patch_size=16, projection_dim=16), kind="ModelWithProjection"),
        "convnextv2": classifier("ConvNextV2", STAGES),
        "deit": classifier("DeiT", VIT),
        "dinov2": classifier("Dinov2", dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, image_size=56,
                                            size=56), 56),
        "levit": classifier("Levit", dict(hidden_sizes=[32, 48, 64], num_attention_heads=[2, 3, 4], depths=[1, 1, 1],
                                          key_dim=[8, 8, 8], image_size=224), 224),
        "mobilevit": classifier("MobileViT", dict(image_size=64, hidden_sizes=[16, 24, 32],
                                                  neck_hidden_sizes=[8, 8, 16, 16, 24, 32, 64])),
        "poolformer": classifier("PoolFormer", STAGES),
        "regnet": classifier("RegNet", dict(STAGES, embedding_size=8, groups_width=8)),
        "segformer": classifier("Segformer", dict(hidden_sizes=[16, 16, 32, 32], depths=[1, 1, 1, 1],
                                                  decoder_hidden_size=32, num_attention_heads=[1, 2, 2, 4]),
                                kind="ForSemanticSegmentation"),
        "siglip_vision": classifier("SiglipVision", dict(VIT, patch_size=16), kind="Model"),
        "swin": classifier("Swin", SWIN),
        "swinv2": classifier("Swinv2", SWIN),
        "vit": classifier("ViT", VIT),
        "audio_spectrogram": ("ASTForAudioClassification", "ASTConfig",
                              dict(hidden_size=32, max_length=64, num_mel_bins=32, patch_size=16, **HEADS), samples(64, 32)),
        "hubert": ("HubertForCTC", "HubertConfig", SPEECH, samples(4000)),
        "patchtst": ("PatchTSTForClassification", "PatchTSTConfig",
                     dict(num_input_channels=3, context_length=64, patch_length=8, patch_stride=8, d_model=32,
                          num_hidden_layers=2, num_attention_heads=4, ffn_dim=64, num_targets=5),
                     samples(64, 3, name="past_values")),
        "wav2vec2": ("Wav2Vec2ForCTC", "Wav2Vec2Config", SPEECH, samples(4000)),
    }


def make(name):
    import transformers

    kind, configuration, options, inputs = table()[name]
    return getattr(transformers, kind)(getattr(transformers, configuration)(**options)), inputs
