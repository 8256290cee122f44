"""Lets the CUDA build of SGLang import on a CPU: torchvision gets two schemas, triton is SGLang's own mock."""

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys


def _torchvision_schemas():
    import torch

    lib = torch.library.Library("torchvision", "FRAGMENT")
    lib.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    lib.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    sys._torchvision_schema_lib = lib  # keep alive


def _triton_mock(sglang_dir):
    if "triton" in sys.modules or importlib.util.find_spec("triton") is not None:
        return
    spec = importlib.util.spec_from_file_location(
        "_sglang_platform_stubs", os.path.join(sglang_dir, "_platform_stubs.py")
    )
    S = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = S  # its dataclass needs this
    spec.loader.exec_module(S)
    sys.meta_path.insert(0, S._TritonFinder())
    mk = S._make_mock
    t = mk("triton")
    t.__version__, t.cdiv, t.next_power_of_2, t.Config = "3.0.0", S._cdiv, S._next_power_of_2, S._Config
    tl = t.language = mk("triton.language")
    tl.constexpr = type("constexpr", (), {"__init__": lambda self, value=None: setattr(self, "value", value)})
    tl.extra = mk("triton.language.extra")
    tl.extra.libdevice = mk("triton.language.extra.libdevice")
    rt = t.runtime = mk("triton.runtime")
    rt.jit = mk("triton.runtime.jit")
    rt.jit.JITFunction = type("JITFunction", (), {})
    rt.jit.KernelInterface = type("KernelInterface", (S._StubBase,), {})
    rt.cache = mk("triton.runtime.cache")
    rt.cache.triton_key = S._triton_key
    rt.autotuner = mk("triton.runtime.autotuner")
    rt.autotuner.OutOfResources = type("OutOfResources", (Exception,), {})
    rt.autotuner.PTXASError = type("PTXASError", (Exception,), {})
    rt.driver = mk("triton.runtime.driver")
    c = t.compiler = mk("triton.compiler")
    c.CompiledKernel = type("CompiledKernel", (S._StubBase,), {})
    c.compiler = mk("triton.compiler.compiler")
    c.compiler.ASTSource = type("ASTSource", (S._StubBase,), {})
    c.compiler.triton_key = S._triton_key
    t.testing = mk("triton.testing")
    t.tools = mk("triton.tools")
    t.tools.tensor_descriptor = mk("triton.tools.tensor_descriptor")
    b = t.backends = mk("triton.backends")
    b.compiler = mk("triton.backends.compiler")
    b.compiler.GPUTarget = type("GPUTarget", (S._StubBase,), {})


class _Hook(importlib.abc.MetaPathFinder):
    done = set()

    def find_spec(self, name, path=None, target=None):
        if name in ("torchvision", "sglang") and name not in self.done:
            self.done.add(name)
            if name == "torchvision":
                _torchvision_schemas()
            else:
                spec = importlib.machinery.PathFinder.find_spec("sglang", path)
                if spec and spec.submodule_search_locations:
                    _triton_mock(list(spec.submodule_search_locations)[0])
        return None


sys.meta_path.insert(0, _Hook())
