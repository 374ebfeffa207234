r"""Explain a picture by a network as it is, and pruned for this picture.

  python -m launch.explain cat.jpg --methods=lrp,saliency
  python -m launch.explain cat.jpg --target="tabby cat" --sparsity=0.6
  python -m launch.explain --serve

Writes the picture beside maps of the dense network and of the one that SPADE
(arXiv 2310.04519) makes of it, with the likeliest classes and the timings.
--serve shows the same in a local web page, where a slider moves the sparsity.
The first picture takes a minute or two, since programs are compiled;
--jax_cache_dir keeps them. Exit status: 0 it is written; 2 a user's error;
130 stopped by SIGINT.
"""

import argparse
import pathlib
import signal
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from launch import configuring

_MOST_COPIES = 256


def main(arguments: Sequence[str] | None = None) -> int:
  """Run the command; return its exit status.

  Args:
    arguments: Command line without the program; None takes the real one.

  Returns:
    The exit status, see the top of this file.
  """
  arguments = list(sys.argv[1:] if arguments is None else arguments)
  needed = () if "--serve" in arguments else ("IMAGE",)
  try:
    options = _parser().parse_all(arguments, required=needed)
  except SystemExit as end:  # --help, or a message of argparse
    return int(end.code or 0)
  try:
    return _serve(options) if options.serve else _explain(options)
  except KeyboardInterrupt:
    print("explain: stopped", file=sys.stderr)
    return 128 + signal.SIGINT
  except (OSError, ValueError) as error:
    if options.debug:
      raise
    print(f"explain: {error}", file=sys.stderr)
    return 2


def _parser() -> configuring.Parser:
  parser = configuring.Parser(
    prog="python -m launch.explain",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument
  add("image", metavar="IMAGE", nargs="?", help="a picture in a file")
  add("--model", default="efficientnet_lite0", help="the network")
  add(
    "--methods",
    default="lrp,saliency",
    help="attribution methods, with commas between them",
  )
  add(
    "--target",
    metavar="CLASS",
    help="number or name of the class to explain; by default the likeliest",
  )
  add("--classes", type=int, default=5, help="how many classes are named")
  add(
    "--sparsity",
    type=float,
    help="share to prune of every layer; by default what suits the network",
  )
  add(
    "--copies",
    type=int,
    default=8,
    help="random crops that say what the layers react to",
  )
  add(
    "--damping",
    type=float,
    default=0.01,
    help="ridge of the solver, as a share of the mean square of the inputs",
  )
  add("--seed", type=int, default=0, help="seed of the crops")
  add(
    "--output",
    metavar="FILE",
    help="a .png, .pdf or .svg; by default IMAGE_explained.png, in the working"
    " directory",
  )
  add("--directory", metavar="DIR", help="where the weights lie")
  add(
    "--jax_cache_dir",
    metavar="DIR",
    help="keep compiled programs here for the next run; must not be writable"
    " by everybody",
  )
  add("--serve", action="store_true", help="show a page at 127.0.0.1")
  add("--port", type=int, default=8765, help="of the page; 0 for a free one")
  add("--debug", action="store_true", help="show the traceback of every error")
  return parser


def _check(options: argparse.Namespace) -> list[str]:
  """Reject options out of range, and return the methods."""
  for name, least, most in (
    ("copies", 1, _MOST_COPIES),
    ("classes", 1, 20),
    ("port", 0, 65535),
    ("seed", 0, 2**32 - 1),
    ("sparsity", 0.0, 1.0),
    ("damping", 0.0, 1e6),
  ):
    value = getattr(options, name)
    if value is not None and not least <= value <= most:
      raise ValueError(f"--{name} must be from {least} to {most}, got {value}")
  from effjax.studies.spade import networks

  methods = [name.strip() for name in options.methods.split(",")]
  methods = list(dict.fromkeys(name for name in methods if name))
  if not methods:
    raise ValueError(
      f"--methods needs at least one of {', '.join(networks.METHODS)}"
    )
  networks.check_methods(methods)
  return methods


def _network(options: argparse.Namespace) -> Any:
  """Load the network."""
  import jax

  from effjax.studies.spade import networks

  if options.jax_cache_dir is not None:
    configuring.keep_programs(options.jax_cache_dir)
    # There are many programs, none of them large.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
  return networks.load(options.model, directory=options.directory)


def _explain(options: argparse.Namespace) -> int:
  """Write the figure of one picture."""
  methods = _check(options)
  output = _output(options)

  import jax

  from effjax.io import files
  from effjax.studies.spade import explaining, networks, overlays, photographs

  picture = photographs.read_image(options.image)
  network = _network(options)
  target = None
  if options.target is not None:
    target = networks.find_class(network, options.target)
  found = explaining.explain(
    jax.random.key(options.seed),
    network,
    picture,
    methods,
    target=target,
    sparsity=options.sparsity,
    copies=options.copies,
    damping=options.damping,
    shown=min(options.classes, len(network.classes)),
    progress=lambda text: print(f"  {text} ...", file=sys.stderr, flush=True),
  )
  for name, dense, traced in found.top:
    print(f"{100 * dense:5.1f} %  {100 * traced:5.1f} % by SPADE  {name}")
  for name, seconds in found.seconds.items():
    print(f"{seconds:6.2f} s  {name}")
  print(f"{sum(found.seconds.values()):6.2f} s  together")
  # Written under another name first.
  part = output.with_name(f".{output.stem}.part{output.suffix}")
  try:
    with files.explained("write the figure", output):
      overlays.figure(found).savefig(part, dpi=150)
      part.replace(output)
  finally:
    part.unlink(missing_ok=True)
  print(f"figure: {output}")
  return 0


def _output(options: argparse.Namespace) -> pathlib.Path:
  """Settle where the figure goes, before anything is computed."""
  output = pathlib.Path(
    options.output or f"{pathlib.Path(options.image).stem}_explained.png"
  )
  if output.suffix.lower() not in (".png", ".pdf", ".svg"):
    raise ValueError(f"--output {output} must end in .png, .pdf or .svg")
  if output.is_dir() or not output.parent.is_dir():
    kind = "is a directory" if output.is_dir() else "is in no directory"
    raise ValueError(f"--output {output} {kind}; expected a file's name")
  try:
    # What a folder says of its permissions is not all that counts.
    tempfile.TemporaryFile(dir=output.parent).close()
  except OSError as error:
    raise ValueError(
      f"--output {output} cannot be written: {error.strerror}"
    ) from error
  return output


def _serve(options: argparse.Namespace) -> int:
  """Show the page until it is stopped."""
  methods = _check(options)

  from launch import pages, serving

  network = _network(options)
  service = serving.Service(
    network,
    method=methods[0],
    sparsity=options.sparsity,
    copies=options.copies,
    damping=options.damping,
    seed=options.seed,
  )
  with pages.make_server(service, options.port) as server:
    print(f"{pages.address(server)}  (control-C stops it)", flush=True)
    server.serve_forever()
  return 0


if __name__ == "__main__":
  sys.exit(main())
