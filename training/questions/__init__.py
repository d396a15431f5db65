"""Multiple-choice questions about pictures, out of documents, labels and simulated evidence; no torch in here."""

from .pictures import PictureSubject, picture_questions, picture_subjects
from .question import LETTERS, PRIOR_TASKS, TASKS, Question, Task, compose_question, knowledge_lines, question_text
from .writing import QuestionWriter, Subject, coarse_place, subject_of

__all__ = [
    "LETTERS",
    "PRIOR_TASKS",
    "TASKS",
    "PictureSubject",
    "Question",
    "QuestionWriter",
    "Subject",
    "Task",
    "coarse_place",
    "compose_question",
    "knowledge_lines",
    "picture_questions",
    "picture_subjects",
    "question_text",
    "subject_of",
]
