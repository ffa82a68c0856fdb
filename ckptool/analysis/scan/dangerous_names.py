"""Names that a pickle runs code, starts programs or reaches files and networks with: a table.

Each is dangerous together with all that is below it: a module with its functions and submodules, a
class with its methods. Where several lines fit, the longest path says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["DANGEROUS", "NAMES_OF_DANGER"]

_TABLE: Final[tuple[tuple[str, str], ...]] = (
    ("reaches the system: programs, files, environment", "os posix nt"),
    (
        "runs a command in a shell",
        """
        os.system os.popen posix.system posix.popen nt.system nt.popen commands popen2 pipes
        subprocess.getoutput subprocess.getstatusoutput platform.popen imaplib.IMAP4_stream
        torch.utils.collect_env _osx_support _aix_support
        """,
    ),
    (
        "runs a program",
        """
        subprocess _posixsubprocess pty pexpect sh plumbum psutil invoke fabric paramiko docker git
        platform.architecture platform.uname platform._syscmd_ver platform._syscmd_file
        platform._syscmd_uname platform._syscmd_processor _pyrepl sysconfig uuid pydoc mailcap cgi
        torch.utils.cpp_extension torch.utils.hipify torch.distributed.run torch.distributed.launch
        torch.distributed.launcher torch.distributed.elastic
        """,
    ),
    (
        "starts processes or threads",
        """
        multiprocessing _multiprocessing concurrent.futures threading _thread asyncio _asyncio
        _posixshmem torch.multiprocessing torch.distributed.rpc loky uvloop trio anyio
        _xxsubinterpreters _interpreters
        """,
    ),
    (
        "acts on the running process",
        """
        sys signal _signal resource faulthandler atexit gc site sitecustomize usercustomize
        builtins.exit builtins.quit builtins.help builtins.license builtins.copyright
        builtins.credits weakref.finalize _testcapi _testinternalcapi
        """,
    ),
    (
        "runs code that it is given",
        """
        builtins.eval builtins.exec builtins.compile builtins.execfile builtins.apply
        builtins.breakpoint builtins.input builtins.raw_input builtins.__build_class__
        __builtins__ code codeop runpy timeit cProfile profile _lsprof hotshot pdb bdb trace doctest
        unittest test pytest _pytest nose rlcompleter compiler py_compile compileall zipapp
        modulefinder idlelib lib2to3 IPython jedi ptpython bpython gettext rexec
        types.CodeType types.FunctionType types.LambdaType new.code new.function
        dataclasses.make_dataclass typing.get_type_hints typing._eval_type turtle tkinter _tkinter
        cloudpickle.cloudpickle._make_function cloudpickle.cloudpickle._builtin_type
        numpy.f2py numpy.distutils numpy.testing numpy.lib.utils.safe_eval scipy.weave
        pandas.eval pandas.core.computation pandas.DataFrame.eval pandas.DataFrame.query
        pandas.core.frame.DataFrame.eval pandas.core.frame.DataFrame.query
        numexpr sympy.sympify sympy.core.sympify sympy.parsing sympy.utilities.lambdify
        sympy.printing.preview cffi _cffi_backend Cython cython pyximport numba llvmlite
        torch.compile torch._inductor torch.fx torch.jit torch.package torch.export torch._export
        torch.testing._internal torch.utils.benchmark torch.utils.bottleneck torch.utils.jit
        torch._dynamo.bytecode_transformation torch._dynamo.codegen torch._dynamo.debug_utils
        torch._dynamo.guards torch._dynamo.package torch._dynamo.repro
        torch._dynamo.symbolic_convert torch._dynamo.test_case torch._dynamo.testing
        torch._dynamo.trace_rules torch._dynamo.utils torch._dynamo.variables
        torch._C._jit_script_compile torch._C.CompilationUnit torch._C.import_ir_module
        torch._C.import_ir_module_from_buffer
        keras.layers.Lambda keras.src.layers.core.lambda_layer tensorflow.keras.layers.Lambda
        tensorflow.py_function tensorflow.numpy_function keras.utils.python_utils
        keras.src.utils.python_utils jinja2 mako hydra.utils hydra._internal
        """,
    ),
    (
        "calls a function that it is given",
        "builtins.map builtins.filter functools.reduce sched contextlib.ExitStack",
    ),
    (
        "imports a module by its name",
        """
        builtins.__import__ builtins.reload builtins.__loader__ builtins.__spec__ importlib
        importlib_metadata importlib_resources imp _imp _frozen_importlib
        _frozen_importlib_external zipimport pkgutil pkg_resources ihooks antigravity
        cloudpickle.cloudpickle.subimport torch._utils._import_dotted_name
        transformers.dynamic_module_utils transformers.utils.import_utils
        django.utils.module_loading werkzeug.utils.import_string
        """,
    ),
    (
        "reaches any attribute by its name",
        """
        builtins.getattr builtins.setattr builtins.delattr builtins.hasattr builtins.vars
        builtins.globals builtins.locals builtins.dir builtins.super operator _operator
        inspect.getattr_static inspect.getmembers inspect.getmembers_static inspect.currentframe
        inspect.stack inspect.trace inspect.getsource inspect.getmodule inspect.getfile
        string.Formatter types.MethodType torch.utils._config_module
        """,
    ),
    (
        "unpickles other bytes",
        """
        pickle _pickle cPickle pickle5 dill cloudpickle ray.cloudpickle joblib shelve marshal
        jsonpickle klepto pathos hickle copyreg.add_extension copyreg.remove_extension
        copyreg.pickle copyreg.constructor
        torch.load torch.serialization torch.storage._load_from_bytes torch._weights_only_unpickler
        torch.utils.data.datapipes.utils.decoder torch.utils.show_pickle torch.utils.model_dump
        torch.utils._config_module.ConfigModule torch.distributed.checkpoint.format_utils
        torch.distributed.distributed_c10d._tensor_to_object
        numpy.load numpy.loads numpy.lib.npyio numpy.lib._npyio_impl numpy.lib.format
        numpy.lib._format_impl pandas.read_pickle pandas.to_pickle pandas.io
        pandas.compat.pickle_compat scipy.io sklearn.utils._joblib yaml ruamel
        keras.models.load_model keras.saving keras.src.saving keras.src.legacy.saving
        tensorflow.keras.models.load_model tensorflow.python.keras.saving tensorflow.saved_model
        tensorflow.python.saved_model lightning_fabric.utilities.cloud_io
        lightning.fabric.utilities.cloud_io
        """,
    ),
    (
        "loads native code",
        """
        ctypes _ctypes numpy.ctypeslib torch.ops.load_library torch.classes.load_library
        torch._ops.load_library tensorflow.load_op_library tensorflow.load_library
        """,
    ),
    (
        "reads, writes or deletes files",
        """
        builtins.open builtins.file io.open io.open_code io.FileIO io.OpenWrapper _io.open
        _io.open_code _io.FileIO _pyio codecs.open shutil tempfile glob fileinput filecmp linecache
        mmap tarfile zipfile gzip.open gzip.GzipFile bz2.open bz2.BZ2File lzma.open lzma.LZMAFile
        sqlite3 _sqlite3 dbm _dbm _gdbm bsddb logging.FileHandler logging.handlers logging.config
        tokenize.open wave.open aifc sunau posixpath ntpath genericpath macpath readline winreg
        _winapi msvcrt netrc mailbox
        numpy.memmap numpy.core.memmap numpy._core.memmap numpy.fromfile
        numpy.core.multiarray.fromfile numpy._core.multiarray.fromfile
        numpy.core.records.fromfile numpy._core.records.fromfile numpy.rec.fromfile
        numpy.core._methods._dump numpy._core._methods._dump numpy.save numpy.savez
        numpy.savez_compressed numpy.savetxt numpy.loadtxt numpy.genfromtxt numpy.fromregex
        numpy.DataSource numpy.lib._datasource numpy.compat.py3k
        torch.save torch.from_file torch._C.PyTorchFileReader torch._C.PyTorchFileWriter
        torch.PyTorchFileReader torch.PyTorchFileWriter torch.utils.file_baton
        torch.utils.tensorboard torch.distributed.FileStore torch._C._distributed_c10d.FileStore
        torch.distributed.checkpoint.filesystem.FileSystem
        torch.distributed.checkpoint.filesystem.FileSystemWriter
        pandas.read_csv pandas.read_json pandas.read_parquet pandas.read_hdf
        h5py.File fsspec smart_open PIL.Image.open cv2.imread cv2.imwrite
        """,
    ),
    ("deletes files", "os.remove os.unlink os.rmdir os.removedirs shutil.rmtree"),
    (
        "opens connections",
        """
        socket _socket ssl _ssl socketserver select selectors http urllib urllib2 urllib3 httplib
        httplib2 httpx httpcore requests aiohttp websocket websockets ftplib smtplib smtpd poplib
        imaplib nntplib telnetlib xmlrpc asyncore asynchat wsgiref webbrowser syslog
        torch.hub torch.utils.model_zoo torch.distributed.TCPStore
        torch._C._distributed_c10d.TCPStore huggingface_hub boto3 botocore s3fs gcsfs pycurl wget
        gdown dns scapy twisted tornado flask fastapi gradio
        """,
    ),
    (
        "installs packages",
        "pip ensurepip venv virtualenv distutils _distutils_hack setuptools easy_install conda",
    ),
    (
        "evaluates text as code",
        """
        sympy mpmath six.exec_ typing_extensions.get_type_hints functorch torchgen
        typing_extensions.evaluate_forward_ref annotationlib mypy.api pluggy
        """,
    ),
    (
        "starts a program or loads code by its name",
        """
        execnet click.edit click.launch typer.launch pydantic.types.ImportString
        pygments.lexers.load_lexer_from_file distributed.protocol.pickle mlflow.pyfunc win32api
        """,
    ),
    (
        "is a program that inspects pickles, which this could switch off",
        """
        ckptool fickling picklescan modelscan modelaudit modelaudit_picklescan model_unpickler
        saferpickle
        """,
    ),
)


def _by_path() -> dict[str, str]:
    return {path: reason for reason, paths in _TABLE for path in paths.split()}


DANGEROUS: Final[Mapping[str, str]] = _by_path()
"""Why each dotted path is dangerous, and everything below it."""

NAMES_OF_DANGER: Final = frozenset({
    "system", "popen", "Popen", "spawn", "spawnl", "spawnle", "spawnlp", "spawnlpe", "spawnv",
    "spawnve", "spawnvp", "spawnvpe", "execl", "execle", "execlp", "execlpe", "execv", "execve",
    "execvp", "execvpe", "startfile", "check_output", "check_call", "getoutput", "getstatusoutput",
    "eval", "exec", "execfile", "safe_eval", "runstring", "runcode", "run_code", "run_module",
    "run_path", "import_module", "load_module", "getattr", "setattr", "delattr", "attrgetter",
    "methodcaller", "exec_", "get_type_hints", "import_string", "unpickle", "load_model",
    "read_pickle", "resolve_name", "load_library", "from_file", "rmtree", "urlopen", "urlretrieve",
})  # fmt: skip
"""Names of functions that act so in whatever module they are found."""
