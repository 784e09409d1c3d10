# The public names for type checkers; __init__.py imports the same names when they are first used.

from fedbbpt.api.finished import FinishedRun as FinishedRun
from fedbbpt.api.jobs import load_job as load_job
from fedbbpt.api.jobs import make_job as make_job
from fedbbpt.api.jobs import parse_job as parse_job
from fedbbpt.api.prompts import Prediction as Prediction
from fedbbpt.api.prompts import TunedPrompt as TunedPrompt
from fedbbpt.api.prompts import load_prompt as load_prompt
from fedbbpt.api.ptm import ask as ask
from fedbbpt.api.ptm import open_ptm as open_ptm
from fedbbpt.api.runs import SimulatedRun as SimulatedRun
from fedbbpt.api.runs import simulate as simulate
from fedbbpt.data.columns import Columns as Columns
from fedbbpt.data.quality import DataWarning as DataWarning
from fedbbpt.errors import FedbbptError as FedbbptError
from fedbbpt.federation.comparison import Comparison as Comparison
from fedbbpt.federation.evaluation import Answers as Answers
from fedbbpt.federation.evaluation import Gain as Gain
from fedbbpt.federation.evaluation import Measured as Measured
from fedbbpt.federation.prompt_file import PromptCard as PromptCard
from fedbbpt.interfaces import Backend as Backend
from fedbbpt.interfaces import ClientHalf as ClientHalf
from fedbbpt.interfaces import Objectives as Objectives
from fedbbpt.interfaces import PromptSpace as PromptSpace
from fedbbpt.interfaces import Ptm as Ptm
from fedbbpt.interfaces import ServerHalf as ServerHalf
from fedbbpt.interfaces import WhiteBox as WhiteBox
from fedbbpt.job.config import Job as Job
from fedbbpt.methods.method import Method as Method
from fedbbpt.methods.method import MethodConfig as MethodConfig
from fedbbpt.types import Examples as Examples
from fedbbpt.types import LabelledExamples as LabelledExamples
from fedbbpt.types import MethodSettings as MethodSettings
from fedbbpt.types import ModelCard as ModelCard
from fedbbpt.types import Report as Report
from fedbbpt.types import Result as Result
from fedbbpt.types import Task as Task
from fedbbpt.types import TaskSpec as TaskSpec
from fedbbpt.types import Update as Update
from fedbbpt.types import merge as merge
from fedbbpt.types import unpack as unpack

__all__: list[str]
__version__: str
