"""The small convolutional network of TRADES, for MNIST: four unpadded convolutions, three layers.

Source: H. Zhang et al., "Theoretically Principled Trade-off between Robustness and Accuracy",
ICML 2019 (its MNIST experiments; the layers are those of N. Carlini and D. Wagner, S&P 2017).
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3)


class SmallCNN(nn.Module):
    """Two pairs of convolutions, each with max pooling, then linear layers; ReLU throughout."""

    def __init__(self, classes: int, channels: int, width: int, hidden: int, side: int) -> None:
        super().__init__()
        self.feature_extractor = nn.Sequential(
            OrderedDict(
                conv1=_conv(channels, width),
                relu1=nn.ReLU(),
                conv2=_conv(width, width),
                relu2=nn.ReLU(),
                maxpool1=nn.MaxPool2d(2),
                conv3=_conv(width, 2 * width),
                relu3=nn.ReLU(),
                conv4=_conv(2 * width, 2 * width),
                relu4=nn.ReLU(),
                maxpool2=nn.MaxPool2d(2),
            )
        )
        self.flatten = nn.Flatten()
        self.classifier = nn.Sequential(
            OrderedDict(
                fc1=nn.Linear(2 * width * side**2, hidden),
                relu1=nn.ReLU(),
                fc2=nn.Linear(hidden, hidden),
                relu2=nn.ReLU(),
                fc3=nn.Linear(hidden, classes),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(n, classes)`` of images ``(n, channels, h, w)``."""
        logits: Tensor = self.classifier(self.flatten(self.feature_extractor(x)))
        return logits


def small_cnn(
    *, width: int = 32, hidden: int = 200, side: int = 4, classes: int = 10, channels: int = 1
) -> nn.Module:
    """The network for images whose last map is ``side`` x ``side``: 4 for 28x28, 5 for 32x32."""
    return SmallCNN(classes, channels, width, hidden, side)
