"""The number of images that every pass is a multiple of."""

# A convolution may pick another kernel for another number of images, and its last bits change.
TILE = 64
