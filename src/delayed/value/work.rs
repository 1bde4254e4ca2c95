//! The shapes of operations: which operands they have, and how their function gets the values.

use std::any::type_name;
use std::sync::Arc;

use super::dot::name_of_function;
use super::handle::Delayed;
use super::node::Graph;
use super::operation::Work;
use crate::delayed::error::JobError;

type Nodes = Vec<Arc<dyn Graph>>;

/// A function of one value.
pub(super) struct Unary<A: 'static, F>(pub(super) Delayed<A>, pub(super) F);

impl<A, F, R> Work for Unary<A, F>
where
    A: Clone,
    F: FnOnce(A) -> Result<R, JobError> + Send + 'static,
    R: Send + Sync + 'static,
{
    type Output = R;

    fn missing(&self, missing: &mut Nodes) -> Result<(), JobError> {
        self.0.missing(missing)
    }

    fn add_operands(&self, operands: &mut Nodes) {
        operands.push(self.0.0.clone());
    }

    fn label() -> &'static str {
        name_of_function(type_name::<F>())
    }

    fn compute(self) -> Result<R, JobError> {
        (self.1)(self.0.into_result()?)
    }

    fn release(self, drop_later: &mut dyn FnMut(Arc<dyn Graph>)) {
        drop_later(self.0.0);
    }
}

/// A function that reads one value.
pub(super) struct Read<A: 'static, F>(pub(super) Delayed<A>, pub(super) F);

impl<A, F, R> Work for Read<A, F>
where
    F: FnOnce(&A) -> R + Send + 'static,
    R: Send + Sync + 'static,
{
    type Output = R;

    fn missing(&self, missing: &mut Nodes) -> Result<(), JobError> {
        self.0.missing(missing)
    }

    fn add_operands(&self, operands: &mut Nodes) {
        operands.push(self.0.0.clone());
    }

    fn label() -> &'static str {
        name_of_function(type_name::<F>())
    }

    fn compute(self) -> Result<R, JobError> {
        Ok((self.1)(self.0.get()?))
    }

    fn release(self, drop_later: &mut dyn FnMut(Arc<dyn Graph>)) {
        drop_later(self.0.0);
    }
}

/// A function of two values.
pub(super) struct Binary<A: 'static, B: 'static, F>(
    pub(super) Delayed<A>,
    pub(super) Delayed<B>,
    pub(super) F,
);

impl<A, B, F, R> Work for Binary<A, B, F>
where
    A: Clone,
    B: Clone,
    F: FnOnce(A, B) -> R + Send + 'static,
    R: Send + Sync + 'static,
{
    type Output = R;

    fn missing(&self, missing: &mut Nodes) -> Result<(), JobError> {
        self.0.missing(missing)?;
        self.1.missing(missing)
    }

    fn add_operands(&self, operands: &mut Nodes) {
        operands.push(self.0.0.clone());
        operands.push(self.1.0.clone());
    }

    fn label() -> &'static str {
        name_of_function(type_name::<F>())
    }

    fn compute(self) -> Result<R, JobError> {
        Ok((self.2)(self.0.into_result()?, self.1.into_result()?))
    }

    fn release(self, drop_later: &mut dyn FnMut(Arc<dyn Graph>)) {
        drop_later(self.0.0);
        drop_later(self.1.0);
    }
}

/// A function that reads two values.
pub(super) struct Compare<A: 'static, F>(
    pub(super) Delayed<A>,
    pub(super) Delayed<A>,
    pub(super) F,
);

impl<A, F> Work for Compare<A, F>
where
    F: FnOnce(&A, &A) -> bool + Send + 'static,
{
    type Output = bool;

    fn missing(&self, missing: &mut Nodes) -> Result<(), JobError> {
        self.0.missing(missing)?;
        self.1.missing(missing)
    }

    fn add_operands(&self, operands: &mut Nodes) {
        operands.push(self.0.0.clone());
        operands.push(self.1.0.clone());
    }

    fn label() -> &'static str {
        name_of_function(type_name::<F>())
    }

    fn compute(self) -> Result<bool, JobError> {
        Ok((self.2)(self.0.get()?, self.1.get()?))
    }

    fn release(self, drop_later: &mut dyn FnMut(Arc<dyn Graph>)) {
        drop_later(self.0.0);
        drop_later(self.1.0);
    }
}

/// One of two values. Only the chosen one is an operand.
pub(super) struct Choose<T: 'static> {
    pub(super) condition: Delayed<bool>,
    pub(super) then: Delayed<T>,
    pub(super) otherwise: Delayed<T>,
}

impl<T: Clone + Send + Sync> Work for Choose<T> {
    type Output = T;

    fn missing(&self, missing: &mut Nodes) -> Result<(), JobError> {
        match self.condition.0.result() {
            None => self.condition.missing(missing),
            Some(Ok(true)) => self.then.missing(missing),
            Some(Ok(false)) => self.otherwise.missing(missing),
            Some(Err(error)) => Err(error.clone()),
        }
    }

    fn add_operands(&self, operands: &mut Nodes) {
        operands.push(self.condition.0.clone());
        operands.push(self.then.0.clone());
        operands.push(self.otherwise.0.clone());
    }

    fn add_used(&self, operands: &mut Nodes) {
        operands.push(self.condition.0.clone());
        match self.condition.0.result() {
            Some(Ok(true)) => operands.push(self.then.0.clone()),
            Some(Ok(false)) => operands.push(self.otherwise.0.clone()),
            Some(Err(_)) | None => {}
        }
    }

    fn label() -> &'static str {
        "choose"
    }

    fn compute(self) -> Result<T, JobError> {
        if *self.condition.get()? {
            self.then.into_result()
        } else {
            self.otherwise.into_result()
        }
    }

    fn release(self, drop_later: &mut dyn FnMut(Arc<dyn Graph>)) {
        drop_later(self.condition.0);
        drop_later(self.then.0);
        drop_later(self.otherwise.0);
    }
}

/// A function of any number of values.
pub(super) struct Many<T: 'static, F>(pub(super) Vec<Delayed<T>>, pub(super) F);

/// The values of [`Many`], which are all there.
pub(super) type Values<'a, T> = &'a mut dyn Iterator<Item = T>;

impl<T, F, R> Work for Many<T, F>
where
    T: Clone,
    F: FnOnce(Values<'_, T>) -> R + Send + 'static,
    R: Send + Sync + 'static,
{
    type Output = R;

    fn missing(&self, missing: &mut Nodes) -> Result<(), JobError> {
        self.0.iter().try_for_each(|value| value.missing(missing))
    }

    fn add_operands(&self, operands: &mut Nodes) {
        operands.extend(
            self.0
                .iter()
                .map(|value| -> Arc<dyn Graph> { value.0.clone() }),
        );
    }

    fn label() -> &'static str {
        match name_of_function(type_name::<F>()) {
            "into_delayed" => "each",
            name => name,
        }
    }

    fn compute(self) -> Result<R, JobError> {
        let mut failure = None;
        let mut values = self.0.into_iter().map_while(|value| {
            let value = value.into_result();
            value.map_err(|error| failure = Some(error)).ok()
        });
        let result = (self.1)(&mut values);
        drop(values);
        match failure {
            None => Ok(result),
            Some(error) => Err(error),
        }
    }

    fn release(self, drop_later: &mut dyn FnMut(Arc<dyn Graph>)) {
        for value in self.0 {
            drop_later(value.0);
        }
    }
}
