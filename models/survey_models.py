"""Models that people train, by name: of torchvision, timm and transformers, and small ones of other kinds.

names(LIBRARY) lists them; make(NAME) gives the module in training mode and what it takes. The transformers' are small
configurations, the others as published, at small images where the model allows that.
"""
import zlib

import torch
from torch import nn

import survey_networks
import survey_transformers

TORCHVISION = """alexnet convnext_tiny densenet121 efficientnet_b0 efficientnet_v2_s googlenet inception_v3 maxvit_t mnasnet0_5
    mobilenet_v3_large mobilenet_v3_small regnet_x_400mf regnet_y_400mf resnext50_32x4d shufflenet_v2_x0_5 swin_t swin_v2_t
    vgg11_bn vit_b_32 wide_resnet50_2
    segmentation.deeplabv3_resnet50 segmentation.fcn_resnet50 segmentation.lraspp_mobilenet_v3_large
    video.mc3_18 video.r2plus1d_18 video.r3d_18 video.s3d video.swin3d_t""".split()
TIMM = """bat_resnext26ts beit_base_patch16_224 botnet26t_256 caformer_s18 cait_xxs24_224 coatnet_0_rw_224 convit_tiny
    convmixer_768_32 convnextv2_atto crossvit_tiny_240 cspdarknet53 cspresnet50 davit_tiny deit3_small_patch16_224 dla34
    dm_nfnet_f0 eca_nfnet_l0 edgenext_xx_small efficientformer_l1 efficientformerv2_s0 efficientvit_b0 efficientvit_m0
    ese_vovnet19b_dw eva02_tiny_patch14_224 fastvit_t8 flexivit_small focalnet_tiny_srf gcresnet33ts gcvit_xxtiny
    ghostnet_050 ghostnetv2_100 gmlp_ti16_224 halonet26t hardcorenas_a hgnet_tiny hiera_tiny_224 hrnet_w18_small
    inception_next_atto inception_resnet_v2 lambda_resnet26t lcnet_050 levit_128s mambaout_femto maxvit_rmlp_pico_rw_256
    mixer_s32_224 mobilenetv4_conv_small mobileone_s0 mobilevit_xxs mobilevitv2_050 mvitv2_tiny nasnetalarge nest_tiny
    nextvit_small nfnet_l0 pit_ti_224 pnasnet5large poolformer_s12 pvt_v2_b0 rdnet_tiny regnetz_b16 repghostnet_050
    repvgg_a0 res2net50_26w_4s resmlp_12_224 resnest14d resnetv2_50 rexnet_100 selecsls42 semnasnet_075 sequencer2d_s
    seresnet18 shvit_s1 skresnet18 starnet_s1 swiftformer_xs swinv2_cr_tiny_224 swinv2_tiny_window8_256 tinynet_e
    tiny_vit_5m_224 tnt_s_patch16_224 tresnet_m twins_pcpvt_small twins_svt_small visformer_tiny
    vit_base_patch16_siglip_224 vit_relpos_small_patch16_224 vit_small_patch16_dinov3 vit_tiny_patch16_224 volo_d1_224
    xception41 xcit_nano_12_p16_224""".split()
LIBRARIES = ["networks", "transformers", "torchvision", "timm"]
NEEDS_ITS_SIZE = ("vit", "mixer", "halo", "lambda", "bot", "coat", "volo", "nest", "levit", "mlp", "swin", "hiera", "eva", "bat_",
                  "inception_r")


class OneResult(nn.Module):
    """The module with its first result alone; `names` are the keywords that it takes its inputs by."""

    def __init__(self, module, names=None):
        super().__init__()
        self.m, self.names = module, names

    def forward(self, *inputs):
        result = self.m(**dict(zip(self.names, inputs))) if self.names else self.m(*inputs)
        while not isinstance(result, torch.Tensor):
            if isinstance(result, dict) and "out" in result:
                result = result["out"]
            else:
                result = result.logits if hasattr(result, "logits") else result[0]
        return result


def names(library):
    table = dict(networks=survey_networks.TABLE, transformers=survey_transformers.table(), torchvision=TORCHVISION,
                 timm=TIMM)[library]
    return [f"{library}/{name}" for name in table]


def images(*shape):
    return {"images": (shape, None)}


def make_torchvision(name):
    import torchvision

    if name.startswith("segmentation."):
        make = getattr(torchvision.models.segmentation, name.split(".")[1])
        return make(weights=None, weights_backbone=None, num_classes=5), images(3, 64, 64)
    if name.startswith("video."):
        frames, size = (16, 224) if name == "video.s3d" else (8, 64)
        make = getattr(torchvision.models.video, name.split(".")[1])
        return make(weights=None, num_classes=10), images(3, frames, size, size)
    options = dict(aux_logits=False, init_weights=False) if name in ("googlenet", "inception_v3") else {}
    size = 224 if name.startswith(("maxvit", "vit")) else 128 if name.startswith(("swin", "inc", "alex", "vgg")) else 64
    return getattr(torchvision.models, name)(weights=None, num_classes=10, **options), images(3, size, size)


def make_timm(name):
    import timm

    model = timm.create_model(name, pretrained=False, num_classes=10)
    size = model.default_cfg.get("input_size", (3, 224, 224))[-1]
    if not model.default_cfg.get("fixed_input_size", False) and not any(part in name for part in NEEDS_ITS_SIZE):
        size = min(size, 64)
    return model, images(3, size, size)


def make(name):
    """The module in training mode, no two weights of it alike, and {input: (shape of a sample, bound of ids or None)}."""
    torch.manual_seed(zlib.crc32(name.encode()))
    library, short = name.split("/")
    keywords = None
    if library == "networks":
        module, inputs = survey_networks.make(short)
    elif library == "transformers":
        module, inputs = survey_transformers.make(short)
        keywords = list(inputs)
    else:
        module, inputs = (make_torchvision if library == "torchvision" else make_timm)(short)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(1e-2 * p.std().nan_to_num(1.0).clamp(min=1e-2) * torch.randn_like(p))
    return OneResult(module, keywords).train(), inputs


def without_dropout(module):
    """Dropout, stochastic depth and what configurations say of them off; batch norm keeps training."""
    ratios = ("p", "drop_prob", "drop_path", "dropout", "dropout_p", "dropout_rate", "attention_dropout",
              "attention_dropout_p", "activation_dropout", "hidden_dropout", "attn_drop", "attn_dropout", "attn_pdrop")
    for part in module.modules():
        drops = "rop" in type(part).__name__ or type(part).__name__ == "StochasticDepth"
        for key in ratios:
            if isinstance(getattr(part, key, None), float) and (key != "p" or drops):
                setattr(part, key, 0.0)
        config = getattr(part, "config", None)
        for key in list(vars(config)) if config is not None else []:
            if "drop" in key and isinstance(getattr(config, key), float):
                setattr(config, key, 0.0)
    return module
