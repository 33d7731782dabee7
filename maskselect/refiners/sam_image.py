"""`SamImage`: an image embedding of SAM, for prompts in pixels of the image.

Shape letters: T points, l side of the decoder's logits, h w a mask's own size, H W pixels of the image.
"""

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image
from torch import Tensor

from maskselect.backends.sam import decode_prompts
from maskselect.backends.sam_network import Sam
from maskselect.ops.masks import upsample_logits


class SamImage:
    """An image that SAM has encoded: its longer side fills SAM's square, the rest is padding.

    Args:
        sam: the model, in float32.
        image: (H, W, 3) uint8.

    Attributes:
        size: (H, W).
        low: l.
        content: rows and columns of the logits that are not padding.
    """

    def __init__(self, sam: Sam, image: np.ndarray) -> None:
        self.sam, self.size = sam, (image.shape[0], image.shape[1])
        self.device = sam.pixel_mean.device
        self.side: int = sam.image_encoder.img_size
        self.low = 4 * sam.prompt_encoder.image_embedding_size[0]
        scale = self.side / max(self.size)
        height, width = self._frame = tuple(max(1, int(length * scale + 0.5)) for length in self.size)
        self.content = -(-height * self.low // self.side), -(-width * self.low // self.side)
        resized = np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
        pixels = rearrange(torch.from_numpy(resized), "h w c -> c h w")[None].to(self.device)
        self.embedding: Tensor = sam.image_encoder(sam.preprocess(pixels.float()))

    def predict(
        self,
        points: np.ndarray,
        labels: np.ndarray,
        box: tuple[float, float, float, float] | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Run one prompt.

        Args:
            points: (T, 2) x and y in pixels of the image.
            labels: (T,) 1 for points of the mask, 0 for points outside.
            box: x0, y0, x1, y1 in pixels of the image.
            mask: (l, l) logits.

        Returns:
            Logits (4, l, l) and predicted IoU (4,), float32. The first of the four is the single-mask output.
        """
        encoder = self.sam.prompt_encoder
        prompts = self._to_square(points)[None], torch.as_tensor(labels, dtype=torch.int64, device=self.device)[None]
        sparse = encoder.points(*prompts, end=box is None)
        if box is not None:
            corners = self._to_square(np.array(box).reshape(2, 2)).reshape(1, 4)
            sparse = torch.cat([sparse, encoder.boxes(corners)], 1)
        mask_prompt = None if mask is None else mask.to(self.device)[None, None]
        low, iou = decode_prompts(self.sam, self.embedding, sparse[None], mask_prompt)
        return low[0, 0].float(), iou[0, 0].float()

    def padded(self, values: Tensor, fill: float) -> Tensor:
        """(h, w) float32 over the image to (l, l): bilinear within the content, `fill` in the padding."""
        rows, columns = self.content
        inside = upsample_logits(values[None], self.content)[0]
        return F.pad(inside, (0, self.low - columns, 0, self.low - rows), value=fill)

    def draw(self, low: Tensor) -> Tensor:
        """Logits (l, l) to a mask (H, W) bool on the CPU: enlarged to SAM's square, cropped, resized, above 0."""
        height, width = self._frame
        square = upsample_logits(low[None], (self.side, self.side))[:, :height, :width]
        return (upsample_logits(square, self.size)[0] > 0).cpu()

    def _to_square(self, points: np.ndarray) -> Tensor:
        """(T, 2) pixels of the image to pixels of SAM's square."""
        scale = np.array([self._frame[1] / self.size[1], self._frame[0] / self.size[0]])
        return torch.as_tensor(points * scale, dtype=torch.float32, device=self.device)
