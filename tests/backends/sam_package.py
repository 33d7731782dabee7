"""A SAM of ours as the `segment_anything` package's, with the same weights. Benchmarks and tests compare with it."""

from functools import partial

from segment_anything import modeling
from torch import nn

from maskselect.backends.sam_encoder import ImageEncoderViT
from maskselect.backends.sam_network import Sam


def to_package(sam: Sam) -> modeling.Sam:
    """The package's networks of the same sizes. An image encoder that is no ViT of SAM's is taken as it is."""
    prompts, decoder, encoder = sam.prompt_encoder, sam.mask_decoder, sam.image_encoder
    made = modeling.Sam(
        _encoder(encoder) if isinstance(encoder, ImageEncoderViT) else encoder,
        modeling.PromptEncoder(
            embed_dim=prompts.embed_dim,
            image_embedding_size=prompts.image_embedding_size,
            input_image_size=(prompts.side, prompts.side),
            mask_in_chans=prompts.mask_downscaling[3].out_channels,
        ),
        modeling.MaskDecoder(
            transformer_dim=prompts.embed_dim,
            transformer=to_package_transformer(decoder.transformer),
            iou_head_depth=len(decoder.iou_prediction_head.layers),
            iou_head_hidden_dim=decoder.iou_prediction_head.layers[0].out_features,
        ),
    )
    made.load_state_dict(sam.state_dict())
    return made.eval().requires_grad_(False)


def to_package_transformer(ours: nn.Module) -> modeling.TwoWayTransformer:
    """The package's transformer of the decoder, with the same weights."""
    some = ours.final_attn_token_to_image.q_proj
    made = modeling.TwoWayTransformer(
        depth=len(ours.layers),
        embedding_dim=some.in_features,
        num_heads=ours.num_heads,
        mlp_dim=ours.layers[0].mlp.lin1.out_features,
        attention_downsample_rate=some.in_features // some.out_features,
    )
    made.load_state_dict(ours.state_dict())
    return made


def _encoder(ours: ImageEncoderViT) -> modeling.ImageEncoderViT:
    width, blocks = ours.patch_embed.proj.out_channels, ours.blocks
    return modeling.ImageEncoderViT(
        img_size=ours.img_size,
        patch_size=ours.patch_embed.proj.kernel_size[0],
        embed_dim=width,
        depth=len(blocks),
        num_heads=blocks[0].attn.num_heads,
        mlp_ratio=blocks[0].mlp.lin1.out_features / width,
        out_chans=ours.neck[0].out_channels,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=blocks[0].attn.use_rel_pos,
        window_size=max(block.window_size for block in blocks),
        global_attn_indexes=tuple(i for i, block in enumerate(blocks) if block.window_size == 0),
    )
