"""RabbitMQ (3.10 and 4.x): implements `Broker` over aio-pika's plain connection.

aio-pika's robust connection has lost consumers after a reconnection and ignores the broker's own consumer cancels, so
restoring is done here: every consumer is a task of its connection that subscribes on a channel of its own, and again
whenever that channel or subscription ends. Messages and acknowledgements go by aio-pika's lower layer (aiormq), which
costs half the time of its message objects.

    adapter.py    the connection, publishing, and its restoring
    consumer.py   one subscription, and what was delivered to it
    topology.py   queues: how they are declared and counted
    faults.py     aiormq's errors as ours
"""
