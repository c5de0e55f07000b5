"""DeepLabV3+ on Pascal VOC 2012 with the recipe of LPS (Rojas-Gomez et al. 2022, arXiv 2210.08001).

python train.py --config=configs/deeplab_voc.py --config.data.path=/data/VOCdevkit/VOC2012
python train.py --config=configs/deeplab_voc.py:resnet50_afc --config.data.path=/data/VOCdevkit/VOC2012
python train.py --config=configs/deeplab_voc.py --config.init_from=runs/resnet18_lps ...

The word after the colon is the backbone, by default resnet18_lps. Its learning rate is a tenth of the other
layers'. Pass `init_from` to start from the weights of a classifier. Crops have 512 pixels, which is divisible
by 32; the original's default is 513. The original does not state the batch size, the number of epochs and
the file of temperatures of its checkpoints. The values here are our interpretation.
"""

from ml_collections import ConfigDict

from configs.imagenet_blur import sgd_recipe


def get_config(backbone: str = "resnet18_lps") -> ConfigDict:
    """Returns the configuration for a backbone."""
    config = sgd_recipe(f"deeplabv3plus_{backbone}")
    config.task = "segmentation"
    # The original's backbone is not dilated, and its running statistics have a larger momentum.
    norm = {"name": "batch", "momentum": 0.99}
    config.model.options = {"backbone": {"name": backbone, "output_stride": 32, "norm": norm}}

    config.data.source = "voc"
    config.data.train_split = "train_aug"
    config.data.image_size = 512
    config.data.interpolation = "bilinear"
    config.data.crop = "random_scaled"
    config.data.scale_range = (0.5, 2.0)
    config.data.flip = True
    config.data.eval_crop_ratio = 1.0
    config.data.eval_view = "crop"

    # Mean over all pixels; ignored pixels count as zeros: the original's default ("focal" with gamma 0).
    config.train.loss = "cross_entropy_of_all"
    config.train.batch_size = 16
    config.train.total_epochs = 125.0
    if backbone.endswith("_lps"):  # tau_segm_multistep_warmup
        config.train.temperature.schedule = "linear"
        config.train.temperature.at_epochs = (10.0, 60.0, 82.0, 90.0)
        config.train.temperature.targets = (0.5, 0.15, 0.05, 0.01)

    config.optimizer.learning_rate = 1e-2
    config.optimizer.backbone_factor = 0.1
    config.optimizer.schedule = "poly"
    config.optimizer.min_learning_rate = 1e-6

    config.eval.batch_size = 16
    config.checkpoint.best = ""  # the evaluation split is the test set, so the last network is reported
    return config
